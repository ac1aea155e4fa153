package machine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/confine"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/machine/snapshot"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// Verdict is what a check of the machine came to.
type Verdict int

// The verdicts.
const (
	Good    Verdict = iota
	Slow            // sandboxes run, but less well than they could
	Limited         // sandboxes run, but lack something
	Bad             // sandboxes do not run
)

// Finding is the result of one check of the machine.
type Finding struct {
	Name    string
	Verdict Verdict
	Finding string // what was found, and the remedy when it is not good

	Remedies []api.Remedy // what to do besides, in the words of whoever shows it
}

// Examine checks what every sandbox needs, in the order in which a new user
// would mend it.
func Examine(ctx context.Context, dirs layout.Dirs) []Finding {
	findings := []Finding{examineQEMU(ctx, dirs)}
	if findings[0].Verdict == Good {
		findings = append(findings, examineKVM(ctx, dirs), examineWalls(ctx, dirs))
	}
	return append(findings, examineVirtiofsd(ctx), examineTransport(), examineDNS(ctx), examineNetwork(), examineDirs(dirs), examineImage(dirs))
}

func finding(name string, err error, good string) Finding {
	if err != nil {
		return Finding{name, Bad, err.Error(), api.Remedies(err)}
	}
	return Finding{Name: name, Verdict: Good, Finding: good}
}

func probeHost(ctx context.Context, dirs layout.Dirs) (qemu.Capabilities, error) {
	binary, err := qemu.Find(qemu.HostArch())
	if err != nil {
		return qemu.Capabilities{}, err
	}
	return qemu.Probe(ctx, binary, dirs.Cache)
}

func examineQEMU(ctx context.Context, dirs layout.Dirs) Finding {
	caps, err := probeHost(ctx, dirs)
	found := fmt.Sprintf("%s, version %s", caps.Binary, caps.Version)
	if err := snapshot.CheckQEMU(caps.Version); err != nil {
		found += "\n" + err.Error()
	}
	return finding("qemu", err, found)
}

func examineKVM(ctx context.Context, dirs layout.Dirs) Finding {
	caps, err := probeHost(ctx, dirs)
	if err != nil {
		return finding("kvm", err, "")
	}
	kvm, err := qemu.ProbeKVM(ctx, caps, qemu.HostArch(), dirs.Cache)
	if err != nil {
		return finding("kvm", err, "")
	}
	return kvmFinding(caps, kvm)
}

func kvmFinding(caps qemu.Capabilities, kvm qemu.KVM) Finding {
	const name = "kvm"
	if !kvm.Usable {
		return Finding{Name: name, Verdict: Slow, Finding: fmt.Sprintf("guests are emulated in software: %s\nremedy: %s", kvm.Reason, kvm.Remedy)}
	}
	if err := caps.CheckFirmware(); err != nil {
		return Finding{Name: name, Verdict: Slow, Finding: fmt.Sprintf("a guest runs under it, but not on the machine type that starts fastest: %v", err)}
	}
	return Finding{Name: name, Verdict: Good, Finding: "a guest runs under it"}
}

// examineWalls tells what would keep a QEMU in that its guest has taken over.
func examineWalls(ctx context.Context, dirs layout.Dirs) Finding {
	const name = "isolation"
	caps, err := probeHost(ctx, dirs)
	if err != nil {
		return finding(name, err, "")
	}
	walls, err := qemu.Walls(ctx, caps)
	if weak, ok := errors.AsType[*confine.WeakError](err); ok {
		return Finding{Name: name, Verdict: Bad, Finding: weak.Error()}
	}
	missing := walls.Missing()
	if err != nil || len(missing) == 0 {
		return finding(name, err, "QEMU has around it: "+walls.String())
	}
	return Finding{Name: name, Verdict: Slow, Finding: fmt.Sprintf("QEMU has around it: %s\nwhat is missing is %s\nremedy: %s", walls, strings.Join(missing, "; "), confine.Remedy)}
}

// examineVirtiofsd shares an empty directory, to find out how this machine lets
// virtiofsd be kept from the rest of it.
func examineVirtiofsd(ctx context.Context) Finding {
	d, err := virtiofs.Find(ctx)
	if err != nil {
		return finding("virtiofsd", err, "")
	}
	found := fmt.Sprintf("%s, version %s", d.Path, d.Version)
	server, unjudged, err := d.Try(ctx)
	if err != nil {
		return Finding{Name: "virtiofsd", Verdict: Bad, Finding: fmt.Sprintf("%s\nit does not run: %v", found, err)}
	}
	if !server.Confined() {
		return Finding{Name: "virtiofsd", Verdict: Bad, Finding: fmt.Sprintf("%s\nthis machine offers no sandbox for it, so a guest that takes it over has all your files; a sandbox runs only if it may be isolated less well\nremedy: allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces=15000, kernel.apparmor_restrict_unprivileged_userns=0; in a container, its seccomp profile)", found)}
	}
	found += ", isolation: " + server.Isolation()
	if unjudged != nil {
		return Finding{Name: "virtiofsd", Verdict: Limited, Finding: fmt.Sprintf("%s\n%v: directories can be shared only without rules\nremedy: boot Linux 5.6 or newer; in a container, its seccomp profile must leave seccomp(2) and process_vm_readv(2) to it", found, unjudged)}
	}
	return Finding{Name: "virtiofsd", Verdict: Good, Finding: found + ", what guests do to shared files can be judged"}
}

func examineTransport() Finding {
	if t, err := chooseTransport(agent.TransportVsock); err == nil {
		return Finding{Name: "agent", Verdict: Good, Finding: fmt.Sprintf("over %s", t)}
	}
	return Finding{Name: "agent", Verdict: Good, Finding: "over virtio-serial, as there is no usable " + vhostVsock}
}

func examineDirs(dirs layout.Dirs) Finding {
	return finding("files", dirs.Prepare(), fmt.Sprintf("images in %s, sandboxes in %s, sockets in %s", dirs.Images(), dirs.State, dirs.Runtime))
}

func examineImage(dirs layout.Dirs) Finding {
	host, err := OpenHost(dirs)
	if err != nil {
		return finding("image", err, "")
	}
	img, err := host.Images.Get("")
	if err != nil {
		return finding("image", err, "")
	}
	return Finding{Name: "image", Verdict: Good, Finding: fmt.Sprintf("the default image is %s", img.Ref())}
}

// dnsPatience is for a DNS server of the host's to answer a start, twice what one
// beyond a slow line takes. A person who asks by doctor waits longer.
const (
	doctorPatience = 3 * time.Second
)

func examineDNS(ctx context.Context) Finding {
	resolver, err := network.ReadResolver()
	var server string
	if err == nil {
		server, err = resolver.ChooseDNS(ctx, network.ModePublic, doctorPatience, network.FromHere)
	}
	if err != nil {
		return Finding{Name: "dns", Verdict: Limited, Finding: err.Error()}
	}
	return Finding{Name: "dns", Verdict: Good, Finding: fmt.Sprintf("guests ask %s, which answers", server)}
}
