package machine

import (
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/qemu"
)

func TestDoctorSaysWhyGuestsStartMoreSlowlyThanTheyCould(t *testing.T) {
	for name, tt := range map[string]struct {
		caps    qemu.Capabilities
		kvm     qemu.KVM
		verdict Verdict
		want    string
	}{
		"everything is there": {qemu.Capabilities{Machines: []string{"microvm", "q35"}, QBoot: "/qboot.rom"}, qemu.KVM{Usable: true}, Good, "a guest runs under it"},
		"no firmware":         {qemu.Capabilities{Machines: []string{"microvm", "q35"}}, qemu.KVM{Usable: true}, Slow, "install the package qemu-system-data"},
		"no microvm to use":   {qemu.Capabilities{Machines: []string{"q35"}}, qemu.KVM{Usable: true}, Good, "a guest runs under it"},
		"no KVM, no firmware": {qemu.Capabilities{Machines: []string{"microvm", "q35"}}, qemu.KVM{Reason: "r", Remedy: "load kvm"}, Slow, "remedy: load kvm"},
	} {
		t.Run(name, func(t *testing.T) {
			got := kvmFinding(tt.caps, tt.kvm)
			if got.Verdict != tt.verdict || !strings.Contains(got.Finding, tt.want) {
				t.Errorf("%+v, want the verdict %d and %q", got, tt.verdict, tt.want)
			}
		})
	}
}
