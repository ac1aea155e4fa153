package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sourcery-zone/sandbox/internal/confine"
)

const (
	kvmDevice   = "/dev/kvm"
	vsockDevice = "/dev/vhost-vsock"

	// kvmProbeDeadline is far more than the 50 ms that the probe guest needs under KVM: where the
	// processor that has KVM is itself emulated, it takes 4 s on a busy machine. Where KVM does not
	// work, the guest runs on until this is over.
	kvmProbeDeadline = 20 * time.Second

	// kvmFailureAge is how long a failure is believed. A machine that was merely overloaded must not
	// be slow until its next boot.
	kvmFailureAge = time.Hour
)

// KVM says whether guests run under KVM on this machine, and if not, why and what to do.
type KVM struct {
	Usable bool
	Reason string // what is wrong; empty if usable
	Remedy string // what to do about it; empty if usable
}

// kvmHost is what ProbeKVM finds on the machine; tests put something else there.
type kvmHost struct {
	device string // path of the KVM device
	boot   string // changes with each boot of the machine
	arch   Arch
	user   string
	drops  bool // QEMU will run as another user than we do
	pvm    bool // the machine's own hypervisor nests by paravirtualisation
	now    time.Time
	run    func(context.Context) error // runs the probe guest under KVM
}

// kvmRecord is what is cached of a probe guest's run.
type kvmRecord struct {
	KVM  KVM
	Time time.Time
}

// ProbeKVM decides whether a guest of the given architecture can use KVM, by running a small one under it:
// there are machines on which /dev/kvm opens and an ordinary guest then spins for ever. The run is kept in
// cacheDir (none if empty) until the machine boots or QEMU changes, a failed one for an hour; whether the
// device may be opened is looked at each time. An error means that the question could not be answered.
func ProbeKVM(ctx context.Context, caps Capabilities, arch Arch, cacheDir string) (KVM, error) {
	id, err := identify(caps.Binary)
	if err != nil {
		return KVM{}, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return KVM{}, fmt.Errorf("reading the machine's boot id: %w", err)
	}
	_, pvmErr := os.Stat("/sys/module/kvm_pvm")
	user, err := confine.ChooseUser(os.Getpid())
	if err != nil {
		return KVM{}, err
	}
	h := kvmHost{
		device: kvmDevice,
		boot:   strings.TrimSpace(string(boot)),
		arch:   HostArch(),
		user:   userName(),
		drops:  user != nil,
		pvm:    pvmErr == nil,
		now:    time.Now(),
		run: func(ctx context.Context) error {
			return runProbeGuest(ctx, caps, arch, AccelKVM, kvmProbeDeadline)
		},
	}
	return h.probe(ctx, caps, arch, id, cache{dir: cacheDir})
}

func (h kvmHost) probe(ctx context.Context, caps Capabilities, arch Arch, id string, store cache) (KVM, error) {
	if arch != h.arch {
		return KVM{
			Reason: fmt.Sprintf("the guest's architecture is %s and this machine's is %s", arch, h.arch),
			Remedy: fmt.Sprintf("use an image for %s", h.arch),
		}, nil
	}
	if !slices.Contains(caps.Accels, AccelKVM) {
		return KVM{
			Reason: fmt.Sprintf("%s was built without KVM", caps.Binary),
			Remedy: "install your distribution's QEMU: " + packages(arch),
		}, nil
	}
	if k := h.checkDevice(); k.Reason != "" {
		return k, nil
	}
	key := h.boot + " " + string(arch) + " " + id
	var record kvmRecord
	if store.load("kvm", key, &record) && (record.KVM.Usable || h.now.Sub(record.Time) < kvmFailureAge) {
		return record.KVM, nil
	}
	err := h.run(ctx)
	if ctx.Err() != nil {
		return KVM{}, fmt.Errorf("probing KVM: %w", context.Cause(ctx))
	}
	var failed *probeFailure
	switch {
	case err == nil:
		record.KVM = KVM{Usable: true}
	case errors.As(err, &failed):
		record.KVM = KVM{Reason: fmt.Sprintf("%s opens, but %v", h.device, failed), Remedy: h.remedy()}
	default:
		return KVM{}, err
	}
	record.Time = h.now
	store.save("kvm", key, record)
	return record.KVM, nil
}

// checkDevice finds the two ordinary reasons, which change at any time and cost nothing to look at.
func (h kvmHost) checkDevice() KVM {
	f, err := os.OpenFile(h.device, os.O_RDWR|syscall.O_CLOEXEC, 0)
	switch {
	case err == nil:
		f.Close()
		if h.drops && confine.RootOnly(h.device) {
			return KVM{
				Reason: h.device + " is open to root alone, and QEMU never runs as root",
				Remedy: fmt.Sprintf("chgrp kvm %s && chmod 660 %s (packages of QEMU and of udev do this)", h.device, h.device),
			}
		}
		return KVM{}
	case errors.Is(err, fs.ErrPermission):
		return KVM{
			Reason: fmt.Sprintf("the user %s may not open %s", h.user, h.device),
			Remedy: permissionRemedy(h.device, h.user),
		}
	case errors.Is(err, fs.ErrNotExist):
		return KVM{
			Reason: h.device + " does not exist",
			Remedy: "switch virtualisation on in the firmware and load the module (modprobe kvm_intel or kvm_amd); " +
				"in a virtual machine have nested virtualisation switched on; in a container pass the device in (--device " + h.device + ")",
		}
	}
	return KVM{
		Reason: fmt.Sprintf("%s cannot be opened: %v", h.device, err),
		Remedy: "see dmesg for what KVM says; another hypervisor may hold the processor's virtualisation",
	}
}

// remedy is for a device that opens and does not work.
func (h kvmHost) remedy() string {
	if h.pvm {
		return "this machine is a guest whose KVM (kvm_pvm) does not run ordinary guests: use bare metal or a machine with hardware-assisted nested virtualisation"
	}
	return "see dmesg for what KVM says; if this machine is a guest, have nested virtualisation switched on by its host"
}

// permissionRemedy prefers the group that the device already belongs to.
func permissionRemedy(device, name string) string {
	info, err := os.Stat(device)
	if err != nil {
		return "make the device's directory readable"
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Gid != 0 && info.Mode().Perm()&0o060 == 0o060 {
		group := strconv.FormatUint(uint64(st.Gid), 10)
		if g, err := user.LookupGroupId(group); err == nil {
			group = g.Name
		}
		return fmt.Sprintf("sudo usermod -aG %s %s, then log in again", group, name)
	}
	return fmt.Sprintf("sudo chgrp kvm %s && sudo chmod 660 %s && sudo usermod -aG kvm %s, then log in again", device, device, name)
}

func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return strconv.Itoa(os.Getuid())
}
