package qmp

import (
	"slices"
	"strings"
)

// harmless are the commands, beside all that begin with query-, that change nothing outside the
// machine itself. Whatever is not here is taken for dangerous, so that a command that QEMU learns
// tomorrow is, too.
var harmless = []string{
	// The machine's run state, its buttons and its keys.
	"stop", "cont", "system_reset", "system_powerdown", "system_wakeup", "inject-nmi", "send-key", "input-send-event",
	"rtc-reset-reinjection", "announce-self", "set_link", "balloon",
	// What reads.
	"qmp_capabilities", "device-list-properties", "qom-get", "qom-list", "qom-list-get", "qom-list-types",
	"qom-list-properties", "trace-event-get-state", "calc-dirty-rate", "block-latency-histogram-set",
	// Jobs that exist.
	"job-cancel", "job-complete", "job-dismiss", "job-finalize", "job-pause", "job-resume",
	"block-job-cancel", "block-job-complete", "block-job-dismiss", "block-job-finalize", "block-job-pause",
	"block-job-resume", "block-job-set-speed",
	// Snapshots within disks that the machine has.
	"snapshot-save", "snapshot-load", "snapshot-delete",
	"blockdev-snapshot-internal-sync", "blockdev-snapshot-delete-internal-sync",
	"block_set_io_throttle", "migrate_cancel",
}

// dangers say why a command is dangerous. A name that ends in * is the beginning of several.
var dangers = []struct{ command, reason string }{
	{"quit", "ends QEMU without asking the guest, and looks like a crash to whoever runs it"},
	{"human-monitor-command", "can do everything that QEMU's human monitor can"},
	{"migrate*", "sends the guest's memory to a file, an address or a program of the host, or takes it from there"},
	{"dump-*", "writes the guest's memory to a file of the host"},
	{"memsave", "writes the guest's memory to a file of the host"},
	{"pmemsave", "writes the guest's memory to a file of the host"},
	{"screendump", "writes a file of the host"},
	{"xen-*", "writes or reads files of the host"},
	{"device_*", "adds or removes devices, those that open files and sockets of the host among them"},
	{"netdev_*", "connects the guest to networks and programs of the host"},
	{"chardev-*", "opens files, sockets and terminals of the host"},
	{"object-*", "creates and removes objects, those that map or read files of the host among them"},
	{"qom-set", "sets any property of any object"},
	{"blockdev-*", "opens, changes or replaces disks, which are files of the host"},
	{"block_resize", "changes the size of a file of the host"},
	{"block-*", "opens, changes or replaces disks, which are files of the host"},
	{"drive-*", "writes disks, which are files of the host"},
	{"change-backing-file", "makes a disk depend on another file of the host"},
	{"transaction", "runs other commands"},
	{"nbd-server-*", "offers disks over the network"},
	{"add-fd", "changes the files that QEMU has open"},
	{"remove-fd", "changes the files that QEMU has open"},
	{"getfd", "changes the files that QEMU has open"},
	{"closefd", "changes the files that QEMU has open"},
	{"get-win32-socket", "changes the files that QEMU has open"},
	{"add_client", "gives a stranger's socket access to the machine"},
	{"set_password", "changes who can see the machine's screen"},
	{"expire_password", "changes who can see the machine's screen"},
	{"display-*", "changes who can see the machine's screen"},
	{"change-vnc-password", "changes who can see the machine's screen"},
	{"trace-event-set-state", "makes QEMU write logs on the host"},
}

// Risk says in a clause why a command is dangerous for the host or for whoever runs the machine, or
// returns "" for one that changes nothing but the machine.
func Risk(command string) string {
	if slices.Contains(harmless, command) || strings.HasPrefix(command, "query-") || strings.HasPrefix(command, "x-query-") {
		return ""
	}
	for _, d := range dangers {
		beginning, several := strings.CutSuffix(d.command, "*")
		if command == d.command || several && strings.HasPrefix(command, beginning) {
			return d.reason
		}
	}
	return "is not among the commands that are known to change nothing but the machine"
}
