#!/bin/sh
# Runs this package's tests under a stock Debian kernel in QEMU, without KVM:
# `sh qemu.sh [PACKAGE [TESTS [ARGUMENTS [BENCHMARKS]]]]`, such as `sh qemu.sh
# linux-image-6.12.117+deb12-amd64 TestListen preempt=full`. PACKAGE is a package of
# apt's or a .deb file, by default the kernel that linux-image-amd64 depends on;
# ARGUMENTS are the kernel's. BENCHMARKS, such as Programs, run after the tests; by default
# none. Prints the tests' output and PASS or FAIL;
# exit status 1 if they fail. Needs Debian on amd64 with qemu-system-x86, cpio and
# xz-utils. It takes some minutes, since QEMU interprets.
set -eu
package=${1:-$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[^ ]*\).*/\1/p' | head -n 1)}
tests=${2:-.}
arguments=${3:-}
benchmarks=${4:-^$}
cd "$(dirname "$0")"
for tool in qemu-system-x86_64 cpio xz apt-get dpkg-deb go; do
	command -v "$tool" >/dev/null || { echo "qemu.sh: it needs $tool" >&2; exit 1; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# fetch PACKAGE unpacks a package into the folder of its name.
fetch() {
	case $1 in
	*.deb) deb=$1 ;;
	*)
		(mkdir "$work/$1.deb.d" && cd "$work/$1.deb.d" && apt-get -q -o APT::Sandbox::User=root download "$1" >&2)
		deb=$(echo "$work/$1.deb.d"/*.deb)
		;;
	esac
	dpkg-deb -x "$deb" "$2"
}
fetch "$package" "$work/kernel"
fetch busybox-static "$work/busybox"

# The first file system: the test binary, a shell, and the modules that make the
# dumps which the tests compare with, in the order in which they need each other.
root=$work/root
mkdir -p "$root/bin" "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/modules"
CGO_ENABLED=0 go test -c -o "$root/probe.test" .
cp "$work/busybox/bin/busybox" "$root/bin/busybox"
for module in inet_diag tcp_diag udp_diag; do
	file=$(find "$work/kernel" -name "$module.ko*" | head -n 1)
	case $file in
	*.xz) xz -dc "$file" >"$root/modules/$module.ko" ;;
	*.ko) cp "$file" "$root/modules/$module.ko" ;;
	*) echo "qemu.sh: $package has no module $module" >&2; exit 1 ;;
	esac
done
cat >"$root/init" <<END
#!/bin/busybox sh
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
busybox mount -t tmpfs tmp /tmp
busybox mount -t cgroup2 cgroup /sys/fs/cgroup
busybox mount -t debugfs debug /sys/kernel/debug
busybox insmod /modules/inet_diag.ko
busybox insmod /modules/tcp_diag.ko
busybox insmod /modules/udp_diag.ko
busybox ip link set lo up
busybox uname -r
export HOME=/tmp TMPDIR=/tmp PORTWATCHER_REQUIRE=1
/probe.test -test.v -test.timeout 30m -test.run '$tests' -test.bench '$benchmarks' -test.benchtime 10x
echo "qemu.sh: exit status \$?"
busybox poweroff -f
END
chmod 755 "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initramfs"

timeout 2400 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 1024 -no-reboot -nographic \
	-kernel "$work"/kernel/boot/vmlinuz-* -initrd "$work/initramfs" \
	-append "console=ttyS0 quiet loglevel=3 panic=-1 $arguments" </dev/null | sed -u "s/\r//g" | tee "$work/output"
if grep -q '^qemu.sh: exit status 0$' "$work/output"; then
	echo "PASS: $package"
else
	echo "FAIL: $package"
	exit 1
fi
