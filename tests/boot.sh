#!/bin/sh
# Boots a Debian with its systemd in QEMU, and tries the program and its units there.
#
#   tests/boot.sh [-d DIR] [-k] [-f] RELEASE...
#
#   -d DIR   where the machines are made (build/chroots of this checkout)
#   -k       keep the machine's disk and kernel, and what it said
#   -f       make afresh what an earlier run kept as DIR/RELEASE.tar and DIR/RELEASE-boot.tar
#   RELEASE  a name that debootstrap knows, such as bookworm or trixie
#
# It needs root, debootstrap, mke2fs and qemu-system-x86_64, and the network until the machine boots.
# Exit codes: 1 a test failed, or a machine did not say that it passed; 2 usage, or a machine that
# cannot be made.
#
# Theory of operation:
#   A chroot (tests/chroot.sh) gets what a machine needs to boot, which is kept as RELEASE-boot.tar,
#   and then the program, by README.md's own commands. mke2fs makes a disk of it, so nothing is
#   mounted. QEMU boots that disk once for each of BOOTS: its kernel's command line names the tests
#   of that boot. They run under systemd and report on the second serial port; the first is the
#   console. The processor is emulated, so any host will do; its guests are emulated in turn.
#   Nothing stays running, also after SIGKILL: setpriv ties what runs to what started it. Files are
#   left behind by SIGKILL alone, in DIR, and go with the next run.
set -eu

BOOTS="first second third"
LIMIT=3600 # seconds for one boot and its tests; on two processors a boot takes about 300
checkout=$(cd "$(dirname "$0")/.." && pwd)

say() { echo "boot: $*"; }

die() {
    say "$*" >&2
    exit 2
}

usage() { sed -n '4,9s/^# \{0,1\}//p' "$0"; }

# Run a command in the background, so that a signal is heeded at once; it ends with this script.
during() {
    setpriv --pdeathsig KILL "$@" 8>&- &
    child=$!
    code=0
    wait "$child" || code=$?
    child=''
    return "$code"
}

in_chroot() { # COMMAND
    during "$checkout/tests/chroot.sh" -d "$directory" -k "$release-boot" -- "$1" ||
        die "$release: $1 failed"
}

prepare() {
    tar=$tree.tar
    [ -z "$fresh" ] || rm -f "$directory/$release.tar" "$tar"
    if [ -f "$tar" ] && cmp -s "$checkout/tests/boot/packages" "$tar.made-by"; then
        return
    fi
    rm -f "$tar"
    in_chroot tests/boot/packages
    rm -rf "$tree/root/qmpmem"
    during tar -C "$tree" -cf "$tar.new" .
    cp "$checkout/tests/boot/packages" "$tar.made-by"
    mv "$tar.new" "$tar"
}

make_disk() {
    in_chroot tests/boot/program
    "$checkout/launchers/tinyguest" build >/dev/null
    mkdir -p "$tree/root/qmpmem/build/tinyguest"
    cp -R "$checkout"/build/tinyguest/guest-* "$tree/root/qmpmem/build/tinyguest/"
    cp "$tree"/boot/vmlinuz-* "$machine.kernel"
    cp "$tree"/boot/initrd.img-* "$machine.initrd"
    rm -f "$machine.disk"
    during mke2fs -q -t ext4 -d "$tree" "$machine.disk" 4G >/dev/null || die "$release: mke2fs failed"
    rm -rf --one-file-system "$tree"
}

boot() { # BOOT
    report=$machine.$1.report
    : >"$report"
    setpriv --pdeathsig KILL tail -f "$report" 8>&- &
    tail=$!
    during timeout "$LIMIT" setpriv --pdeathsig KILL qemu-system-x86_64 \
        -accel tcg,thread=multi -smp 2 -m 2G -nodefaults -display none -no-reboot \
        -kernel "$machine.kernel" -initrd "$machine.initrd" \
        -append "root=/dev/vda rw console=ttyS0 panic=-1 mitigations=off cryptomgr.notests qmpmem.boot=$1" \
        -drive "file=$machine.disk,if=virtio,format=raw,cache=unsafe" -device virtio-rng-pci \
        -serial "file:$machine.$1.console" -serial "file:$report" || say "QEMU: exit code $?" >&2
    sleep 1
    kill "$tail"
    tail=''
    grep -qxF "boot: $1: passed" "$report"
}

try() {
    release=$1
    exec 8>"$directory/.$1-machine.lock"
    flock -n 8 || die "$release: another run uses $directory/$1-machine.disk"
    tree=$directory/$1-boot machine=$directory/$1-machine
    started=$(date +%s)
    prepare
    make_disk
    say "$release: the disk is made after $(($(date +%s) - started)) s"
    for boot in $BOOTS; do
        started=$(date +%s) word=passed
        boot "$boot" || word=failed
        say "$release: $boot boot: $word after $(($(date +%s) - started)) s"
        if [ "$word" = failed ]; then
            failed=1
            tail -n 40 "$machine.$boot.console"
            break
        fi
    done
}

# Where it ends early, what it began is ended first; nothing else of it is in `tree` then.
clean() {
    [ -z "$child" ] || ! kill "$child" 2>/dev/null || wait "$child" || :
    [ -z "$tail" ] || kill "$tail" 2>/dev/null || :
    [ -n "$keep" ] || [ -z "$machine" ] || rm -f "$machine".*
    [ -z "$tree" ] || rm -rf --one-file-system "$tree" "$tree.tar.new"
}

main() {
    directory=$checkout/build/chroots keep='' fresh='' failed=0 child='' tail='' tree='' machine=''
    while getopts d:kfh option; do
        case $option in
        d) directory=$OPTARG ;;
        k) keep=1 ;;
        f) fresh=1 ;;
        h) usage && exit ;;
        *) usage >&2 && exit 2 ;;
        esac
    done
    shift $((OPTIND - 1))
    [ $# -gt 0 ] || die "name a release, such as bookworm or trixie; -h shows how"
    [ "$(id -u)" -eq 0 ] || die "chroots need root"
    for command in debootstrap mke2fs qemu-system-x86_64; do
        command -v "$command" >/dev/null || die "$command: not found"
    done
    mkdir -p "$directory"
    directory=$(cd "$directory" && pwd)
    trap clean EXIT
    trap 'say "stopped" >&2; exit 130' INT TERM HUP
    for release; do
        try "$release"
        clean
    done
    exit "$failed"
}

main "$@"
