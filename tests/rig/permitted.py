"""What an agent that is not root may have QEMU do, and what it may not: commands and arguments."""

from collections.abc import Mapping
from typing import Final

Command = tuple[str, Mapping[str, object] | None]

BALLOON: Final = "/machine/peripheral/qmpmem0"
ANONYMOUS: Final = "/machine/peripheral-anon/device[0]"


def get(path: object, name: object) -> Command:
    return "qom-get", {"path": path, "property": name}


def put(path: object, name: object, value: object) -> Command:
    return "qom-set", {"path": path, "property": name, "value": value}


INTERVAL: Final = "guest-stats-polling-interval"

PASSED: Final[list[Command]] = [
    ("balloon", {"value": 1 << 30}),
    ("query-balloon", None),
    ("query-status", {}),
    ("query-named-block-nodes", {"flat": True}),
    ("query-qmp-schema", None),
    ("qom-list", {"path": "/machine/peripheral"}),
    ("qom-list", {"path": "/machine/peripheral-anon"}),
    ("qom-list", {"path": "/objects"}),
    get("/machine", "type"),
    get("/machine", "confidential-guest-support"),
    get(BALLOON, "guest-stats"),
    get(ANONYMOUS, "guest-stats"),
    get(BALLOON, INTERVAL),
    get(BALLOON, "deflate-on-oom"),
    get(BALLOON, "free-page-reporting"),
    get("/machine/peripheral/cxl0", "volatile-memdev"),
    get("/objects/ram0", "hugetlb"),
    get("/objects/ram0", "share"),
    get("/objects/ram0", "mem-path"),
    get("/objects/ram0", "size"),
    put(BALLOON, INTERVAL, 0),
    put(ANONYMOUS, INTERVAL, 2),
]

REFUSED: Final[list[Command]] = [
    *(
        (command, None)
        for command in """
    quit stop cont system_reset system_powerdown system_wakeup inject-nmi send-key
    watchdog-set-action migrate migrate-incoming migrate-set-parameters migrate-set-capabilities
    migrate_cancel migrate-continue migrate-pause migrate-recover human-monitor-command
    object-add object-del device_add device_del device-sync-config netdev_add netdev_del
    chardev-add chardev-change chardev-remove chardev-send-break blockdev-add blockdev-del
    blockdev-reopen blockdev-mirror blockdev-backup blockdev-snapshot blockdev-snapshot-sync
    blockdev-create blockdev-change-medium block-commit block-stream block_resize
    block_set_io_throttle drive-mirror drive-backup nbd-server-start nbd-server-add
    block-export-add transaction savevm loadvm snapshot-save snapshot-load snapshot-delete getfd
    closefd add-fd remove-fd add_client set_password expire_password change-vnc-password
    display-update display-reload client_migrate_info screendump dump-guest-memory dump-skeys
    memsave pmemsave xen-save-devices-state xen-set-global-dirty-log trace-event-set-state
    qom-list-properties qom-list-types device-list-properties qom-list-get set_link rocker
    set-cpu-topology cpu-add set-action rtc-reset-reinjection x-exit-preconfig calc-dirty-rate
    set-vcpu-dirty-limit cancel-vcpu-dirty-limit announce-self yank replay-break query query_x
    query- query-STATUS query-cpu-model-expansion query-cpu-model-baseline
    query-cpu-model-comparison query-firmware-log query-that-none-knows x-query-jit xquery-a
    BALLOON balloon2 qom-set2 qom_get
    """.split()  # noqa: SIM905 - a table
    ),
    ("migrate", {"uri": "exec:id"}),
    ("human-monitor-command", {"command-line": "info balloon"}),
    ("", None),
    ("query-status\nquit", None),
    # Moving memory takes one number.
    ("balloon", None),
    ("balloon", {}),
    ("balloon", {"value": 0}),
    ("balloon", {"value": -1}),
    ("balloon", {"value": 1 << 63}),
    ("balloon", {"value": 1.5}),
    ("balloon", {"value": True}),
    ("balloon", {"value": "1"}),
    ("balloon", {"value": [1]}),
    ("balloon", {"value": 1, "more": 1}),
    # Properties, each with the objects that have it.
    ("qom-get", None),
    ("qom-get", {"path": BALLOON}),
    ("qom-get", {"property": "guest-stats"}),
    ("qom-get", {"path": BALLOON, "property": "guest-stats", "more": 1}),
    get(BALLOON, "type"),
    get(BALLOON, "size"),
    get(BALLOON, "mem-path"),
    get(BALLOON, "Guest-stats"),
    get(BALLOON, ""),
    get("/machine", "guest-stats"),
    get("/machine", "initrd"),
    get("/machine/peripheral", "guest-stats"),
    get("/machine/peripheral/", "guest-stats"),
    get("/machine/peripheral/a/b", "guest-stats"),
    get("/machine/peripheral-anon", "guest-stats"),
    get("/machine/unattached/device[0]", "guest-stats"),
    get("qmpmem0", "guest-stats"),
    get("", "type"),
    get("/", "type"),
    get("machine", "type"),
    get("/machine\n", "type"),
    get("/objects/sec0", "data"),
    get("/objects/sec0", "file"),
    get("/objects/a/b", "size"),
    get("/objects", "size"),
    get("/chardevs/a", "size"),
    get(["/machine"], "type"),
    get("/machine", ["type"]),
    get(None, None),
    ("qom-list", None),
    ("qom-list", {"path": "/"}),
    ("qom-list", {"path": "/chardevs"}),
    ("qom-list", {"path": "/machine/peripheral/qmpmem0"}),
    ("qom-list", {"path": ["/objects"]}),
    ("qom-list", {"path": "/objects", "more": 1}),
    # One property can be set.
    ("qom-set", None),
    ("qom-set", {"path": BALLOON, "property": INTERVAL}),
    put(BALLOON, "deflate-on-oom", value=False),
    put(BALLOON, "guest-stats", 1),
    put(BALLOON, "realized", value=False),
    put(BALLOON, INTERVAL, -1),
    put(BALLOON, INTERVAL, 1 << 32),
    put(BALLOON, INTERVAL, value=True),
    put(BALLOON, INTERVAL, "1"),
    put(BALLOON, INTERVAL, None),
    put("/machine", INTERVAL, 1),
    put("/machine/peripheral/a/virtio-backend", INTERVAL, 1),
    put("/objects/ram0", INTERVAL, 1),
    put("/objects/throttle0", "limits", {}),
    put(None, INTERVAL, 1),
    ("qom-set", {"path": BALLOON, "property": INTERVAL, "value": 1, "more": 1}),
]
