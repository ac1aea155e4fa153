package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/sourcery-zone/sandbox/internal/process"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/qemu"
)

// nixGuest is what the command line of microvm.nix is made for.
type nixGuest struct {
	machine               qemu.Machine
	accel                 qemu.Accel
	cpus, memoryMiB       int
	kernel, initrd, store string
	sshPort               int
	monitor               string // path of the QMP socket
}

// args is the command line that microvm.nix starts QEMU with, for a guest with
// an image for a store and user networking. Left out, which can only make it
// faster: the host's /nix/store over 9p and the shares over virtiofs.
//
// Under TCG, `pit=off,pic=off` and the host's processor are impossible, and the
// microvm board hangs: there the board is the q35 that our own guests have,
// with as little on it.
func (g nixGuest) args() []string {
	board := "microvm,accel=kvm:tcg,acpi=on,mem-merge=on,pcie=on,pic=off,pit=off,rtc=on,usb=off"
	processor := []string{"-enable-kvm", "-cpu", "host,+x2apic,-sgx", "-device", "i8042"}
	if g.accel == qemu.AccelTCG {
		board = "q35,accel=tcg,acpi=on,mem-merge=on,usb=off,sata=off,smbus=off,vmport=off"
		processor = []string{"-cpu", "max"} // this board has an i8042
	}
	memory := strconv.Itoa(g.memoryMiB) + "M"
	args := []string{
		"-M", board, "-m", memory, "-smp", strconv.Itoa(g.cpus),
		"-nodefaults", "-no-user-config", "-no-reboot", "-kernel", g.kernel, "-initrd", g.initrd,
		"-chardev", "stdio,id=stdio,signal=off", "-device", "virtio-rng-pci", "-serial", "chardev:stdio",
	}
	args = append(args, processor...)
	return append(args,
		"-append", "earlyprintk=ttyS0 console=ttyS0 reboot=t panic=-1 8250.nr_uarts=1 root=fstab loglevel=4",
		"-nographic", "-sandbox", "on", "-qmp", "unix:"+g.monitor+",server,nowait",
		// aio=io_uring there; many containers forbid it.
		"-drive", "id=vda,format=raw,file="+g.store+",if=none,aio=threads,discard=unmap,read-only=on", "-device", "virtio-blk-pci,drive=vda",
		"-numa", "node,memdev=mem", "-object", "memory-backend-memfd,id=mem,size="+memory+",share=on",
		"-netdev", fmt.Sprintf("user,id=net0,hostfwd=tcp:%s:%d-:22", loopback, g.sshPort),
		"-device", "virtio-net-pci,netdev=net0,mac=52:54:00:12:34:56,romfile=")
}

// readyVsMicroVMNix compares the time to the first command's output with the
// time until sshd answers in a guest as microvm.nix would start it: its command
// line, the same kernel, and the same packages as they are.
func readyVsMicroVMNix(ctx context.Context, b *bench) ([]figure, error) {
	files, err := hostKeyFiles(b.dir)
	if err != nil {
		return nil, err
	}
	initrd, err := b.writePlainInitrd(ctx, "microvmnix", slices.Concat(files, networkFiles(), updatedFiles(), sshdFiles()))
	if err != nil {
		return nil, err
	}
	if err := leaveRoomForTables(initrd); err != nil {
		return nil, err
	}
	answers := func(ctx context.Context) (time.Duration, error) { return b.sshdAnswers(ctx, initrd) }
	var ours, theirs series
	for range b.repeat {
		took, err := measure(ctx, b.firstOutput)
		if err != nil {
			return nil, err
		}
		ours = append(ours, took)
		if took, err = measure(ctx, answers); err != nil {
			return nil, err
		}
		theirs = append(theirs, took)
	}
	f := ratio("ready-vs-microvm-nix", ours, theirs).with(0.35)
	if b.plan.VM.Accel == qemu.AccelTCG {
		f.detail += "; its command line on q35, as its own board hangs under TCG"
	}
	return []figure{f}, nil
}

// leaveRoomForTables lengthens an initial RAM disk to whole pages. On the board
// of microvm.nix, QEMU then leaves the last page of memory to SeaBIOS's ACPI
// tables. The end of any other one is in that page, so that a guest hangs or has
// no devices unless there is room for both (microvm-nix/microvm.nix#171).
func leaveRoomForTables(initrd string) error {
	const page = 4096
	info, err := os.Stat(initrd)
	if err != nil {
		return err
	}
	return os.Truncate(initrd, (info.Size()+page-1)/page*page)
}

// firstOutput is the time from the start of `sandbox run` to the first byte
// that its command writes.
func (b *bench) firstOutput(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	first := &firstWrite{}
	_, err := b.run(ctx, first, "run", "--rm", "--", "echo", "ready")
	if err == nil && first.at.IsZero() {
		err = errors.New("the command in the sandbox wrote nothing")
	}
	return first.at.Sub(start), err
}

// firstWrite notes when it was written to first.
type firstWrite struct{ at time.Time }

func (w *firstWrite) Write(p []byte) (int, error) {
	if w.at.IsZero() {
		w.at = time.Now()
	}
	return len(p), nil
}

// sshdAnswers is the time from the start of QEMU to sshd's greeting.
func (b *bench) sshdAnswers(ctx context.Context, initrd string) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	port, err := network.FreePort("tcp", netip.MustParseAddr(loopback))
	if err != nil {
		return 0, err
	}
	vm := b.plan.VM
	guest := nixGuest{
		machine: vm.Machine, accel: vm.Accel, cpus: vm.CPUs, memoryMiB: vm.MemoryMiB,
		kernel: b.img.Kernel(), initrd: initrd, store: b.img.Store(),
		sshPort: port, monitor: filepath.Join(b.dir, "control.socket"),
	}
	cmd := exec.Command(b.plan.QEMU.Binary, guest.args()...)
	output := newConsole()
	cmd.Stdout = output
	start := time.Now()
	p, err := process.Start(cmd, process.Options{})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, ended(p), os.RemoveAll(guest.monitor)) }()
	ctx, cancelWhenDead := context.WithCancelCause(ctx)
	defer cancelWhenDead(nil)
	go func() {
		<-p.Done()
		cancelWhenDead(fmt.Errorf("QEMU ended: %w", p.Err()))
	}()
	select {
	case <-output.await(sshdWord):
		if greets(ctx, port) {
			return time.Since(start), nil
		}
	case <-ctx.Done():
	}
	return 0, fmt.Errorf("sshd did not answer: %w\nThe last of the guest's console:\n%s", cmp.Or(context.Cause(ctx), context.DeadlineExceeded), output.tail())
}

// ended kills a guest that is of no more use; what it says of that is no error.
func ended(p *process.Process) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = p.Stop(ctx, time.Second)
	select {
	case <-p.Done():
		return nil
	default:
		return fmt.Errorf("QEMU (process %d) could not be ended", p.PID())
	}
}

// knock is the time between two connections: where the guest's network comes
// up after sshd listens, the kernel of the guest hears of the first one only
// when QEMU tries again, seconds later. It is long enough for no more of them
// to be open at once than sshd takes (MaxStartups).
const knock = time.Second

// greets returns true as soon as an SSH server greets on the port.
func greets(ctx context.Context, port int) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	greeted := make(chan struct{}, 1)
	ticker := time.NewTicker(knock)
	defer ticker.Stop()
	for {
		go func() {
			if hears(ctx, port) {
				select {
				case greeted <- struct{}{}:
				default:
				}
			}
		}()
		select {
		case <-greeted:
			return true
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
	}
}

// hears connects and tells whether an SSH server greets.
func hears(ctx context.Context, port int) bool {
	const patience = 8 * time.Second // sshd under emulation takes seconds from accepting to its greeting
	var d net.Dialer
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(loopback, strconv.Itoa(port)))
	if err != nil {
		return false
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	word := make([]byte, len("SSH-"))
	_, err = io.ReadFull(conn, word)
	return err == nil && string(word) == "SSH-"
}
