# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pools, volumes and secrets as libvirt's schema allows them, each with all that it knows for the type.

tests/contract/test_libvirt.py checks them against libvirt's own schema and parser.
"""

from __future__ import annotations

PERMISSIONS = (
    "<permissions><mode>0711</mode><owner>107</owner><group>36</group>"
    "<label>system_u:object_r:virt_image_t:s0</label></permissions>"
)
CHAP = "<auth type='chap' username='u'><secret {}/></auth>"
UUID = "uuid='3e0c6e1e-3d3e-4a2c-8f0d-0d4f9a1c7b11'"
MOUNT_OPTIONS = (
    "<fs:mount_opts xmlns:fs='http://libvirt.org/schemas/storagepool/fs/1.0'>"
    "<fs:option name='noatime'/><fs:option name='nodiratime'/></fs:mount_opts>"
)
RBD_OPTIONS = (
    "<rbd:config_opts xmlns:rbd='http://libvirt.org/schemas/storagepool/rbd/1.0'>"
    "<rbd:option name='client_mount_timeout' value='45'/><rbd:option name='rados_osd_op_timeout' value='10'/>"
    "</rbd:config_opts>"
)
MAKER = "<vendor name='Acme'/><product name='Box'/>"


def pool(
    type_name: str, source: str = "", target: str = "/srv/x", permissions: str = PERMISSIONS, rest: str = ""
) -> str:
    """One pool; without a target where that is empty. The schema wants elements of other namespaces last."""
    text = f"<pool type='{type_name}'><name>x</name>"
    text += f"<source>{source}</source>" if source else ""
    text += f"<target><path>{target}</path>{permissions}</target>" if target else ""
    return text + rest + "</pool>"


def cow(state: str) -> str:
    return f"<features><cow state='{state}'/></features>"


POOLS: dict[str, list[str]] = {
    "dir": [pool("dir"), pool("dir", permissions=""), pool("dir", rest=cow("yes")), pool("dir", MAKER, rest=cow("no"))],
    "fs": [
        *(
            pool("fs", f"<device path='/dev/vdb1'/><format type='{form}'/>")
            for form in ("auto", "ext2", "ext3", "ext4", "ufs", "iso9660", "udf", "gfs", "gfs2", "vfat", "hfs+", "xfs")
        ),
        pool("fs", "<device path='/dev/vdb1'/><format type='ocfs2'/>" + MAKER, rest=cow("yes")),
        pool("fs", "<device path='/dev/disk/by-id/a'/><format type='vmfs'/>", rest=MOUNT_OPTIONS),
    ],
    "netfs": [
        pool("netfs", f"<host name='nas'/><dir path='/export'/><format type='{form}'/>")
        for form in ("auto", "nfs", "glusterfs", "cifs")
    ]
    + [
        pool(
            "netfs",
            "<host name='nas' port='2049'/><dir path='/export'/><format type='nfs'/><protocol ver='4.1'/>" + MAKER,
            rest=MOUNT_OPTIONS,
        ),
    ],
    "logical": [
        pool("logical", "<name>vg</name><format type='lvm2'/>", "/dev/vg"),
        pool(
            "logical",
            "<device path='/dev/vdb'/><device path='/dev/vdc'/><name>vg</name><format type='lvm2'/>" + MAKER,
            "/dev/vg",
        ),
    ],
    "disk": [
        pool("disk", f"<device path='/dev/vdb'/><format type='{form}'/>", "/dev")
        for form in ("dos", "dvh", "gpt", "mac", "bsd", "pc98", "sun", "lvm2")
    ]
    + [pool("disk", "<device path='/dev/mapper/m' part_separator='no'/><format type='gpt'/>" + MAKER, "/dev")],
    "iscsi": [
        pool("iscsi", f"<host name='san'/><device path='iqn.2026-01.com.example:a'/>{login}", "/dev/disk/by-path")
        for login in ("", CHAP.format("usage='iscsi/a'"), CHAP.format(UUID))
    ]
    + [
        pool(
            "iscsi",
            "<host name='san' port='3261'/><device path='iqn.2026-01.com.example:a'/>"
            f"<initiator><iqn name='iqn.2026-01.com.example:host'/></initiator>{MAKER}",
            "/dev/disk/by-path",
        ),
    ],
    "iscsi-direct": [
        pool(
            "iscsi-direct",
            "<host name='san' port='3260'/><device path='iqn.2026-01.com.example:a'/>"
            f"<initiator><iqn name='iqn.2026-01.com.example:host'/></initiator>{login}",
            "",
        )
        for login in ("", CHAP.format("usage='iscsi/a'"), CHAP.format(UUID))
    ],
    "scsi": [
        pool("scsi", f"<adapter {adapter}", "/dev/disk/by-path")
        for adapter in (
            "type='scsi_host' name='scsi_host3'/>" + MAKER,
            "type='scsi_host'><parentaddr unique_id='1'>"
            "<address domain='0x0000' bus='0x00' slot='0x1f' function='0x2'/></parentaddr></adapter>",
            "type='fc_host' wwnn='20000000c9831b4b' wwpn='10000000c9831b4b'/>",
            "type='fc_host' parent='scsi_host5' managed='no' wwnn='20000000c9831b4b' wwpn='10000000c9831b4b'/>",
            "type='fc_host' parent_wwnn='20000000c9831b4c' parent_wwpn='10000000c9831b4c' managed='yes'"
            " wwnn='20000000c9831b4b' wwpn='10000000c9831b4b'/>",
            "type='fc_host' parent_fabric_wwn='2001000dec9877c1' wwnn='20000000c9831b4b' wwpn='10000000c9831b4b'/>",
        )
    ],
    "mpath": [pool("mpath", "", "/dev/mapper")],
    "rbd": [
        pool("rbd", "<name>vms</name><host name='mon1'/>", ""),
        pool(
            "rbd",
            "<name>vms</name><host name='mon1' port='6789'/><host name='2001:db8::1' port='3300'/>",
            "",
            rest=RBD_OPTIONS,
        ),
        *(
            pool(
                "rbd",
                f"<name>vms</name><host name='mon1'/><auth type='ceph' username='libvirt'><secret {secret}/></auth>",
                "",
                rest=f"<refresh><volume allocation='{allocation}'/></refresh>",
            )
            for secret, allocation in (("usage='ceph libvirt'", "default"), (UUID, "capacity"))
        ),
    ],
    "gluster": [
        pool("gluster", "<name>vol</name><host name='g1'/>", ""),
        pool("gluster", "<name>vol</name><host name='g1' port='24007'/><host name='g2'/><dir path='/sub'/>", ""),
    ],
    "zfs": [
        pool("zfs", "<name>tank/vms</name>", "/dev/zvol/tank/vms", ""),
        pool("zfs", "<name>tank</name><device path='/dev/vdb'/>", "/dev/zvol/tank"),
    ],
    "vstorage": [pool("vstorage", "<name>cluster</name>", "/mnt/vz", PERMISSIONS)],
}

LUKS = (
    "<encryption format='luks'><secret type='passphrase' usage='disk-x'/>"
    "<cipher name='serpent' size='256' mode='cbc' hash='sha256'/><ivgen name='plain64' hash='sha256'/></encryption>"
)
VOLUMES = [
    "<volume><name>x</name><capacity>1073741824</capacity><allocation>0</allocation><target><format type='raw'/>"
    f"{PERMISSIONS}</target></volume>",
    "<volume><name>x</name><capacity>1073741824</capacity><allocation>1073741824</allocation><target>"
    "<format type='qcow2'/><compat>1.1</compat><nocow/><clusterSize>131072</clusterSize>"
    "<features><lazy_refcounts/><extended_l2/></features></target></volume>",
    f"<volume><name>x</name><capacity>1048576</capacity><target><format type='raw'/>{LUKS}</target></volume>",
    "<volume><name>x</name><capacity>1048576</capacity><target><format type='qcow2'/>"
    f"<encryption format='luks'><secret type='passphrase' {UUID}/></encryption></target>"
    "<backingStore><path>/srv/base</path><format type='raw'/></backingStore></volume>",
]

SECRETS = [
    f"<secret ephemeral='{ephemeral}' private='{private}'><uuid>3e0c6e1e-3d3e-4a2c-8f0d-0d4f9a1c7b11</uuid>"
    f"{description}<usage type='{usage}'>{name}</usage></secret>"
    for (usage, name), ephemeral, private, description in (
        (("volume", "<volume>/srv/x</volume>"), "no", "no", "<description>of x</description>"),
        (("ceph", "<name>client.x</name>"), "yes", "no", ""),
        (("iscsi", "<target>iscsi x</target>"), "no", "yes", ""),
        (("tls", "<name>tls x</name>"), "yes", "yes", "<description>&lt;a&gt;</description>"),
        (("vtpm", "<name>vtpm x</name>"), "no", "no", ""),
    )
]
