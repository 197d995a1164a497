#!/bin/sh
# Runs commands in bare Debians: a chroot of each release with git and make only, and a clone of
# this checkout's HEAD in its /root.
#
#   tests/chroot.sh [-d DIR] [-k] [-f] RELEASE... [-- COMMAND...]
#
#   -d DIR   where the chroots are made (build/chroots of this checkout)
#   -k       keep the chroot after the commands; the next run starts afresh all the same
#   -f       bootstrap again, in place of what an earlier run kept as DIR/RELEASE.tar
#   RELEASE  a name that debootstrap knows, such as bookworm or trixie; with a word after it, such
#            as bookworm-boot, a chroot beside that of bookworm: out of DIR/bookworm-boot.tar where
#            there is one, else out of DIR/bookworm.tar
#   COMMAND  one word each, run by sh in the clone (default: "make demo" "make test")
#
# It needs root and debootstrap. Exit codes: 1 a command failed (the others still ran), 2 usage,
# or a chroot that cannot be made.
#
# Theory of operation:
#   The script starts itself again in a new PID and mount namespace. The kernel ends all processes
#   of a PID namespace with its first one, and what is mounted only in a mount namespace goes with
#   its last process. So nothing stays running or mounted, also after SIGKILL: setpriv ties the
#   first process of the namespace to the shell that was called.
#   What is mounted for the commands is mounted in a third namespace, so the `rm` of the chroot
#   never meets it.
#   /run is empty, as after a boot. /dev and /sys are the host's: so are the kernel, its KSM, and
#   the cgroups.
#   From the host come the Debian mirrors, apt's Acquire settings, pip's settings, the variables of
#   VARIABLES, the files and directories that these settings name, and the host's own certificates.
set -eu

VARIABLES='^(https?_proxy|ftp_proxy|all_proxy|no_proxy|HTTPS?_PROXY|FTP_PROXY|ALL_PROXY|NO_PROXY|PIP_[A-Z_]*|SSL_CERT_FILE|REQUESTS_CA_BUNDLE)='
checkout=$(cd "$(dirname "$0")/.." && pwd)

say() { echo "chroot: $*"; }

die() {
    say "$*" >&2
    exit 2
}

usage() { sed -n '5,16s/^# \{0,1\}//p' "$0"; }

# Name the host's mirror of an archive (Debian, Debian-Security); nothing where it has none.
mirror() {
    # shellcheck disable=SC2016 # apt fills these in
    apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        awk -v label="$1" '$1 == label { print $2; exit }'
}

bootstrap() { # RELEASE TREE TAR
    command -v debootstrap >/dev/null || die "debootstrap: not found; apt-get install debootstrap"
    say "$1: bootstrapping"
    # shellcheck disable=SC2046 # one word or none: debootstrap has a mirror of its own
    debootstrap --variant=minbase --include=git,make "$1" "$2" $(mirror Debian) >"$3.log" 2>&1 ||
        die "$1: debootstrap failed, see $3.log: $(tail -n 1 "$3.log")"
    rm -f "$2"/var/cache/apt/archives/*.deb
    tar -C "$2" -cf "$2.new" .
    mv "$2.new" "$3"
}

settings() { env | grep -E "$VARIABLES" || :; }

pip_files() {
    for file in /etc/xdg/pip/pip.conf /etc/pip.conf ~/.pip/pip.conf ~/.config/pip/pip.conf; do
        [ ! -f "$file" ] || echo "$file"
    done
}

# Name the host's files and directories that the settings name. An index under a file: URL links to
# its neighbours, so the directory above it is meant.
named_paths() {
    { settings && pip_files | xargs -r cat; } |
        sed -E 's,file://(/[^[:space:]]+)/[^/[:space:]]+,\1,g' | grep -oE '/[^[:space:]=,]+' | sort -u |
        while read -r path; do
            [ ! -e "$path" ] || echo "$path"
        done
}

take_settings() { # RELEASE TREE
    cp -L /etc/resolv.conf /etc/hosts "$2/etc/"
    mkdir -p "$2/usr/local/share"
    cp -RL /usr/local/share/ca-certificates "$2/usr/local/share/" 2>/dev/null || :
    apt-config dump | grep '^Acquire::' >"$2/etc/apt/apt.conf.d/00host" || :
    security=$(mirror Debian-Security)
    [ -z "$security" ] ||
        echo "deb $security ${1%%-*}-security main" >"$2/etc/apt/sources.list.d/security.list"
    pip_files | while read -r file; do
        install -D -m 644 "$file" "$2/$(echo "$file" | sed "s|^$HOME/|root/|")"
    done
    named_paths | while read -r path; do
        [ -d "$path" ] || install -D -m 644 "$path" "$2$path"
    done
}

mount_all() { # TREE
    mount --bind "$1" "$1" # / of a machine is a mount point
    mount -t proc proc "$1/proc"
    mount --rbind /sys "$1/sys"
    mount --rbind /dev "$1/dev"
    mount -t tmpfs -o mode=755 run "$1/run"
    named_paths | while read -r path; do
        [ ! -d "$path" ] || { mkdir -p "$1$path" && mount --bind -o ro "$path" "$1$path"; }
    done
}

# Runs in a mount namespace of its own, which ends with the last process of the command.
enter() { # TREE COMMAND
    tree=$1 command=$2
    mount_all "$tree"
    set --
    while IFS= read -r line; do
        set -- "$@" ${line:+"$line"}
    done <<END
$(settings)
END
    exec env -i HOME=/root TERM="${TERM:-dumb}" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        "$@" chroot "$tree" sh -c "cd /root/qmpmem && $command"
}

try() { # RELEASE COMMAND...
    release=$1 tree=$directory/$1 tar=$directory/$1.tar
    shift
    exec 9>"$tree.lock"
    flock -n 9 || die "$release: another run uses $tree"
    rm -rf --one-file-system "$tree"
    [ -f "$tar" ] || tar=$directory/${release%%-*}.tar
    if [ -n "$fresh" ] || [ ! -f "$tar" ]; then
        bootstrap "${release%%-*}" "$tree" "$tar" 9>&-
    fi
    mkdir -p "$tree"
    tar -C "$tree" -xf "$tar"
    take_settings "$release" "$tree"
    git clone --quiet --no-local "$checkout" "$tree/root/qmpmem"
    for command; do
        say "$release: $command"
        started=$(date +%s) code=0
        unshare --mount "$0" @enter "$tree" "$command" 9>&- || code=$?
        say "$release: $command: exit code $code after $(($(date +%s) - started)) s"
        [ "$code" -eq 0 ] || failed=1
    done
    [ -n "$keep" ] || rm -rf --one-file-system "$tree"
}

try_all() { # DIRECTORY KEEP FRESH RELEASES COMMAND...
    directory=$1 keep=$2 fresh=$3 releases=$4 failed=0
    shift 4
    mount -t proc proc /proc
    for release in $releases; do
        try "$release" "$@"
    done
    exit "$failed"
}

main() {
    directory=$checkout/build/chroots keep='' fresh='' releases=''
    while getopts d:kfh option; do
        case $option in
        d) directory=$OPTARG ;;
        k) keep=1 ;;
        f) fresh=1 ;;
        h) usage && exit ;;
        *) usage >&2 && exit 2 ;;
        esac
    done
    # getopts takes a `--` that follows the options; the one before the commands stays.
    shift $((OPTIND - 1))
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        releases="$releases $1"
        shift
    done
    [ $# -eq 0 ] || shift
    [ -n "$releases" ] || die "name a release, such as bookworm or trixie; -h shows how"
    [ "$(id -u)" -eq 0 ] || die "mounting and chroot need root"
    [ $# -gt 0 ] || set -- "make demo" "make test"
    mkdir -p "$directory"
    setpriv --pdeathsig KILL unshare --pid --mount --kill-child \
        "$0" @all "$(cd "$directory" && pwd)" "$keep" "$fresh" "$releases" "$@" &
    child=$!
    trap 'kill -KILL "$child"; wait "$child" || :; say "stopped" >&2; exit 130' INT TERM HUP
    wait "$child"
}

case ${1-} in
@all) shift && try_all "$@" ;;
@enter) shift && enter "$@" ;;
*) main "$@" ;;
esac
