#!/usr/bin/env bash
# Builds the image of a minimal Debian guest for the QEMU backend, with debootstrap:
#
#   scripts/vm-image.sh [FOLDER]     by default target/vm-image/debian
#
# FOLDER then has
#   disk.qcow2   the root file system, ext4 without partitions
#   vmlinuz      the kernel
#   initrd.img   loads the drivers of virtio and mounts the disk
#   image.sum    what all this was made from
#
# Ends at once if FOLDER has what it would build; remove image.sum to get newer packages. Needs root or sudo. The
# packages come from where this host's come from, if it is a Debian, else from deb.debian.org.
#
#   SUITE            the release of Debian, by default this host's, else trixie
#   EXTRA_PACKAGES   what jobs find, besides the least; by default curl
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source-path=SCRIPTDIR source=need.sh
. scripts/need.sh

readonly DEFAULT_SUITE=trixie
readonly DEFAULT_MIRROR=http://deb.debian.org/debian
readonly DEFAULT_SECURITY=http://deb.debian.org/debian-security
readonly KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
# What the guest itself needs, and what makes a connection of a job's trustworthy.
readonly PACKAGES="ca-certificates e2fsprogs iproute2 kmod mount passwd"
# Loaded in this order, with what they depend on. A driver that the kernel has built in, or lacks, is none.
readonly DRIVERS="virtio_pci virtio_mmio virtio_blk ext4 virtio_console virtio_net virtio_rng"
readonly RESULTS=(disk.qcow2 vmlinuz initrd.img)

# Says what is wrong and ends.
die() {
    complain "$@"
    exit 1
}

# Runs a command that has much to say, and shows the end of it only if it fails.
quietly() {
    "$@" >"$work/log" 2>&1 && return
    tail -n 20 "$work/log" >&2
    die "\`$*\` failed"
}

# Prints the release of Debian that this host is, or the default.
host_suite() {
    local ID="" VERSION_CODENAME=""
    # shellcheck source=/dev/null
    [[ ! -r /etc/os-release ]] || . /etc/os-release
    if [[ $ID == debian && -n $VERSION_CODENAME ]]; then
        echo "$VERSION_CODENAME"
    else
        echo "$DEFAULT_SUITE"
    fi
}

# Prints a checksum of everything that decides what is built, save the day: recipe SUITE EXTRA_PACKAGES
recipe() {
    {
        cat scripts/vm-image.sh scripts/vm-guest.sh
        uname -m
        printf '%s\n' "$@"
    } | sha256sum | cut -d ' ' -f 1
}

# Succeeds if the folder has the image that this would build: is_built FOLDER RECIPE
is_built() {
    local file
    for file in "${RESULTS[@]}"; do
        [[ -f $1/$file ]] || return 1
    done
    [[ -f $1/image.sum ]] && grep -qxF "recipe $2" "$1/image.sum"
}

# Prints where this host's packages of a release come from, and the file of the keys: origin CODENAME LABEL
origin() {
    command -v apt-get >/dev/null || return 0
    # apt's own view of its sources, whatever they are written in; $(…) is its syntax.
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(REPO_URI) $(SIGNED_BY)' "Created-By: Packages" "Origin: Debian" \
        "Codename: $1" "Label: $2" "Component: main" 2>/dev/null | grep -m 1 '^https\{0,1\}:' || true
}

# Gives apt in the guest this host's ways to the network, while the image is built: proxies, certificates, limits.
lend_network() {
    apt-config dump | grep '^Acquire::' | grep -v 'CAInfo\|Proxy-Auto' >"$root/etc/apt/apt.conf.d/zz-host" || true
    if [[ -e /etc/ssl/certs/ca-certificates.crt ]]; then
        cp /etc/ssl/certs/ca-certificates.crt "$root/run/host.crt"
        echo 'Acquire::https::CAInfo "/run/host.crt";' >>"$root/etc/apt/apt.conf.d/zz-host"
    fi
    cp /etc/resolv.conf "$root/etc/resolv.conf"
}

# Runs a command in the guest's file system.
inside() {
    env -i DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
        chroot "$root" "$@"
}

# Installs the system, and brings it up to date: system SUITE EXTRA_PACKAGES
system() {
    local suite=$1 packages mirror security updates keys proxy=""
    read -ra packages <<<"$PACKAGES ${2//,/ }"
    read -r mirror keys <<<"$(origin "$suite" Debian)" || true
    read -r updates _ <<<"$(origin "$suite-updates" Debian)" || true
    read -r security _ <<<"$(origin "$suite-security" Debian-Security)" || true
    [[ -f ${keys:-} ]] || keys=$KEYRING
    mirror=${mirror:-$DEFAULT_MIRROR}
    if command -v apt-config >/dev/null; then
        eval "$(apt-config shell proxy Acquire::http::Proxy)"
        [[ -z $proxy || $proxy == DIRECT ]] || export http_proxy=$proxy
        eval "$(apt-config shell proxy Acquire::https::Proxy)"
        [[ -z $proxy || $proxy == DIRECT ]] || export https_proxy=$proxy
    fi
    quietly debootstrap --variant=minbase --force-check-gpg --keyring="$keys" \
        --include="$(IFS=,; echo "${packages[*]}")" "$suite" "$root" "$mirror"
    cat >"$root/etc/apt/sources.list" <<LIST
deb $mirror $suite main
deb ${updates:-$mirror} $suite-updates main
deb ${security:-$DEFAULT_SECURITY} $suite-security main
LIST
    lend_network
    # apt's terminal.
    mount -t devpts devpts "$root/dev/pts"
    quietly inside apt-get -q update
    quietly inside apt-get -q -y --no-install-recommends upgrade
}

# Unpacks the kernel for this machine beside the system, whose scripts would want a boot loader and an initrd, and
# busybox for our own.
fetch_kernel() {
    local arch name
    arch=$(inside dpkg --print-architecture)
    # The package by this name depends on the kernel, whose name has its version.
    name=$(inside apt-cache depends --important "linux-image-cloud-$arch" | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p')
    [[ -n $name ]] || die "there is no kernel linux-image-cloud-$arch"
    mkdir "$root/run/kernel" "$work/kernel" "$work/busybox"
    quietly inside sh -c 'cd /run/kernel && apt-get -q -o APT::Sandbox::User=root download "$@"' sh "$name" busybox-static
    dpkg-deb -x "$root"/run/kernel/linux-image-*.deb "$work/kernel"
    dpkg-deb -x "$root"/run/kernel/busybox-static_*.deb "$work/busybox"
    # Since trixie it is in /usr/lib alone.
    [[ -e $work/kernel/lib ]] || ln -s usr/lib "$work/kernel/lib"
    version=${name#linux-image-}
    depmod -b "$work/kernel" "$version"
}

# Makes the initrd: not packed, for it is small, and emulation is slow.
make_initrd() {
    local tree=$work/initrd driver line count=100
    mkdir -p "$tree"/{bin,modules,proc,sys,dev,root}
    cp "$work/busybox/bin/busybox" "$tree/bin/" 2>/dev/null || cp "$work/busybox/usr/bin/busybox" "$tree/bin/"
    for driver in $DRIVERS; do
        modprobe -d "$work/kernel" -S "$version" --show-depends "$driver" 2>/dev/null || true
    done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' >"$work/modules"
    while read -r line; do
        count=$((count + 1))
        case $line in
            *.xz) xz -dc "$line" >"$tree/modules/$count.ko" ;;
            *.zst) zstd -qdc "$line" >"$tree/modules/$count.ko" ;;
            *) cp "$line" "$tree/modules/$count.ko" ;;
        esac
    done <"$work/modules"
    cat >"$tree/init" <<'INIT'
#!/bin/busybox sh
# Loads the drivers, mounts the disk and goes on there.
busybox mount -t proc -o nosuid,nodev,noexec proc /proc
busybox mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
busybox mount -t devtmpfs -o nosuid devtmpfs /dev
for module in /modules/*.ko; do
    busybox insmod "$module"
done
init=/sbin/ephemerd-guest
root=/dev/vda
read -r words </proc/cmdline
for word in $words; do
    case $word in
        init=*) init=${word#init=} ;;
        root=*) root=${word#root=} ;;
    esac
done
until [ -b "$root" ]; do
    busybox sleep 0.05
done
# The kernel need not write tables in the background that only a file system that lives on is better for.
busybox mount -t ext4 -o rw,noatime,noinit_itable "$root" /root
for folder in proc sys dev; do
    busybox mount -o move "/$folder" "/root/$folder"
done
exec busybox switch_root /root "$init"
INIT
    chmod 755 "$tree/init"
    (cd "$tree" && find . | sort | cpio --quiet -o -H newc -R 0:0) >"$out/initrd.img"
}

# Makes what the guest has beyond its packages, and removes what it needs no more.
furnish() {
    install -m 755 scripts/vm-guest.sh "$root/sbin/ephemerd-guest"
    cp -a "$work/kernel/lib/modules" "$root/usr/lib/"
    inside useradd --create-home --shell /bin/bash --uid 1000 runner
    echo ephemerd-guest >"$root/etc/hostname"
    printf '127.0.0.1 localhost ephemerd-guest\n::1 localhost\n' >"$root/etc/hosts"
    # The name server of QEMU's user network. Written after the last command that needs this host's.
    rm -f "$root/etc/resolv.conf"
    echo 'nameserver 10.0.2.3' >"$root/etc/resolv.conf"
    # Who is given access to a mirror by its address does not give it to jobs.
    sed -i 's|://[^/ ]*@|://|' "$root/etc/apt/sources.list"
    rm -rf "$root"/etc/apt/apt.conf.d/zz-host "$root"/run/* "$root"/tmp/* "$root"/var/log/*
    rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/cache/debconf/*-old
    rm -rf "$root"/usr/share/man/* "$root"/usr/share/info/* "$root"/usr/share/locale/*
    find "$root/usr/share/doc" ! -type d ! -name copyright -delete
    find "$root/usr/share/doc" -type d -empty -delete
}

# Makes the disk. The guest makes it as large as the job may have it; it is thrown away, so it has no journal.
make_disk() {
    local size
    size=$(du -sm "$root" | cut -f 1)
    size=$((size * 3 / 2))
    ((size > 1024)) || size=1024
    truncate -s "${size}M" "$work/disk.raw"
    mke2fs -q -t ext4 -b 4096 -O ^has_journal -E lazy_itable_init=1 -L ephemerd -d "$root" "$work/disk.raw"
    qemu-img convert -c -O qcow2 -o compression_type=zstd "$work/disk.raw" "$out/disk.qcow2"
}

# The part that needs root, in a mount namespace of its own, so that no mount outlives it:
# build FOLDER SUITE EXTRA_PACKAGES RECIPE OWNER
build() {
    local folder=$1 suite=$2 extra=$3 recipe=$4 owner=$5 file
    work=$(mktemp -d "$folder/.build.XXXXXX")
    root=$work/root
    out=$work/out
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    mkdir "$root" "$out"
    chmod 755 "$work"
    heading "system"
    # The origins of packages are known only from the lists.
    apt-get update -qq || true
    system "$suite" "$extra"
    heading "kernel"
    fetch_kernel
    cp "$work/kernel/boot/vmlinuz-$version" "$out/vmlinuz"
    make_initrd
    heading "disk"
    furnish
    make_disk
    {
        echo "recipe $recipe"
        echo "suite $suite"
        echo "packages $PACKAGES $extra"
        echo "kernel $version"
        (cd "$out" && sha256sum "${RESULTS[@]}")
    } >"$out/image.sum"
    chmod 644 "$out"/*
    chown "$owner" "$out"/*
    # Last what says that the others are whole. A guest that runs keeps the disk it has.
    rm -f "$folder/image.sum"
    for file in "${RESULTS[@]}" image.sum; do
        mv -f "$out/$file" "$folder/$file"
    done
}

# Removes what is only for building.
clean_up() {
    local mount
    trap - EXIT
    awk -v under="$root/" 'index($5, under) == 1 { print $5 }' /proc/self/mountinfo | sort -r |
        while read -r mount; do
            umount -l "$mount"
        done
    rm -rf --one-file-system "$work"
}

if [[ ${1:-} == --build ]]; then
    shift
    build "$@"
    exit
fi
[[ $# -le 1 && ${1:-} != -* ]] || die "usage: scripts/vm-image.sh [FOLDER]"
folder=${1:-target/vm-image/debian}
suite=${SUITE:-$(host_suite)}
extra=${EXTRA_PACKAGES-curl}
sum=$(recipe "$suite" "$extra")
case $(uname -m) in
    x86_64) qemu=(qemu-system-x86_64=qemu-system-x86) ;;
    aarch64) qemu=(qemu-system-aarch64=qemu-system-arm) ;;
    *) die "there is no guest for $(uname -m)" ;;
esac
heading "tools"
PATH=$PATH:/usr/sbin:/sbin need debootstrap=debootstrap qemu-img=qemu-utils "${qemu[@]}" mke2fs=e2fsprogs \
    depmod=kmod cpio=cpio xz=xz-utils zstd=zstd unshare=util-linux "$KEYRING=debian-archive-keyring"
# A version of it from elsewhere does not go with Debian's QEMU, and was removed for that.
need qemu-img=qemu-utils
if is_built "$folder" "$sum"; then
    echo "$folder is built already"
    exit
fi
mkdir -p "$folder"
began=$SECONDS
as_root unshare --mount env PATH="$PATH:/usr/sbin:/sbin" "$PWD/scripts/vm-image.sh" --build \
    "$(realpath "$folder")" "$suite" "$extra" "$sum" "$(id -u):$(id -g)"
echo "$folder is built, in $((SECONDS - began)) s:"
(cd "$folder" && du -h --apparent-size "${RESULTS[@]}")
