"""Memory overcommit for bare QEMU/KVM hosts."""
