#!/bin/sh
# Records streams of a real Xen: run as root in dom0 of a host that has xl, with a Linux kernel and a ramdisk which print
# GUEST READY once they are up. Writes live.xl, pvh.xl and pv.xl into the directory it runs in; thin_xen.py makes them small.
set -eu
kernel=$1
ramdisk=$2
options="console=hvc0 quiet pti=on tsc=reliable no_timer_check nokaslr audit=0 init_on_alloc=0 cryptomgr.notests=1"
options="$options relocd.fill=1 relocd.ws=1 relocd.rate=1 relocd.console=0"

for kind in pvh pv; do
	cat > "$kind.cfg" <<-END
		name = "$kind"
		type = "$kind"
		memory = 96
		vcpus = 1
		kernel = "$kernel"
		ramdisk = "$ramdisk"
		extra = "$options"
	END
	xl create "$kind.cfg"
	(sleep 100 | timeout 100 xl console -t pv "$kind") 2> /dev/null | grep -m1 "GUEST READY"
	if [ "$kind" = pvh ]; then # a PV guest needs shadow paging to migrate live, which Debian's Xen is built without
		xl migrate -s '' "$kind" 'tee live.xl | xl migrate-receive'
	fi
	xl save "$kind" "$kind.xl"
done
