"""What xm's and xl's domain files may say that means nothing here. Each such key earns one gentle warning."""

from __future__ import annotations

_PC = "Every domain is a PC with the devices that its file names."
_SCREEN = "A domain has a serial console and no screen."
_PLACEMENT = "The host's scheduler decides which processors run a domain."
_PASSTHROUGH = "A device of one host cannot move to another."
_BOOT = "A domain boots its kernel if it names one, else from its first disk."

_GROUPS: dict[str, str] = {
    "type builder acpi acpi_s3 acpi_s4 acpi_laptop_slate acpi_firmware altp2m altp2mhvm apic cpuid cpuid_check "
    "device_model device_model_args device_model_args_hvm device_model_args_pv device_model_override "
    "device_model_stubdomain_override device_model_user device_model_version dm_restrict e820_host fda fdb "
    "features gic_version guest_os_type hap hdtype hpet hvm isa localtime max_event_channels max_grant_frames "
    "max_grant_version max_maptrack_frames mca_caps mmio_hole ms_vm_genid nestedhvm nx oos p9 pae pvcalls "
    "rtc_timeoffset s3_integrity shadow_memory smbios smbios_firmware soundhw stubdomain_kernel "
    "stubdomain_memory stubdomain_ramdisk superpages suppress_spurious_page_faults timer_mode tpm tsc_mode usb "
    "usbdevice usbversion vendor_device viridian vkb vpt_align vsnd vtpm vuart xen_platform_pci channel "
    "xend_suspend_evtchn_compat": _PC,
    "display gfx_passthru keymap monitor nographic opengl sdl serial spice spice_clipboard_sharing "
    "spiceagent_mouse spicedisable_ticketing spicehost spicepasswd spiceport spicetls_port "
    "spiceusbredirection spicevdagent stdvga vdispl vfb vga videoram vnc vncconsole vncdisplay vnclisten "
    "vncpasswd vncunused vncviewer xauthority": _SCREEN,
    "cap cpu_cap cpu_weight cpus cpus_soft pool vcpu_avail vnuma": _PLACEMENT,
    "dtdev iomem ioports irq passthrough pci pci_msitranslate pci_permissive pci_power_mgmt pci_seize rdm "
    "rdm_mem_boundary usbctrl usbdev vscsi vusb": _PASSTHROUGH,
    "bios bios_path_override boot bootargs bootentry bootloader bootloader_args firmware firmware_override "
    "loader pvshim pvshim_cmdline pvshim_extra pvshim_path": _BOOT,
    "access_control blkif change_home_server description dhcp driver_domain event_channels gateway hostname "
    "init_seclabel interface ip memory_sharing netif netmask nfs_root nfs_server on_shutdown on_soft_reset "
    "on_watchdog on_xend_start on_xend_stop restart seclabel target tpmif": "",
    "nomigrate": "This domain moves like any other when it is told to.",
}

WITHOUT_MEANING: dict[str, str] = {name: why for names, why in _GROUPS.items() for name in names.split()}
"""Key to what to know about it, or nothing. Sources: xl.cfg(5) and, for xm, xmdomain.cfg(5) and xm create."""
