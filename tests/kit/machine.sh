# The first program of a machine (see machine.py), whose root is the tests' own, read only.
#   ADDRESS              its own, with the length of its network's prefix
#   DISK                 HOST PORT SIZE of its disk
#   FILESYSTEM, MOUNTED  of the disk, and its options
#   PROGRAM, DB          what runs the server, and its database
#   AUDIT                a file; once it is there, an audit runs
# The arguments are the server's, less the one that user-mode Linux adds.

say() { echo "{\"event\": \"$1\", \"code\": $2}" >&2; }

for each; do
    shift
    [ "$each" = console=tty0 ] || set -- "$@" "$each"
done
mount -t proc proc /proc
mount -t sysfs sys /sys
ip link set lo up
ip address add "$ADDRESS" dev eth0
ip link set eth0 up

module=/usr/lib/uml/modules/$(uname -r)/kernel/drivers/block/nbd.ko
"$PYTHON" -IS "${0%/*}/attach_disk.py" "$module" $DISK || halt -f
until [ "$(cat /sys/block/nbd0/size)" -gt 0 ]; do sleep 0.05; done
mount -t "$FILESYSTEM" -o "$MOUNTED" /dev/nbd0 /mnt
say mounted $?

[ -e "${DB#sqlite:///}" ] || "$PYTHON" "$PROGRAM" init --db "$DB" >&2
{
    "$PYTHON" "$PROGRAM" "$@"
    say ended $?
    halt -f
} 2>&1 | cat >&2 & # the server writes JSON where nobody sits at a terminal
until [ -e "$AUDIT" ]; do sleep 0.3; done
"$PYTHON" -m idpass_server audit --db "$DB" >&2
say audited $?
wait
