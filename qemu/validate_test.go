package qemu

import (
	"strings"
	"testing"
)

func TestValidateAcceptsWhatMakesSense(t *testing.T) {
	for name, c := range map[string]Config{"minimal": minimal(), "full": full()} {
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestValidateNamesTheNonsense(t *testing.T) {
	forward := func(list ...Forward) func(*Config) {
		return func(c *Config) { c.NIC.Backend = UserNetwork{Forwards: list} }
	}
	datagrams := func(mtu, fd int) func(*Config) {
		return func(c *Config) { c.NIC.MTU, c.NIC.Backend = mtu, DatagramSocket{FD: fd} }
	}
	ssh := Forward{"tcp", "127.0.0.1", 2222, 22}
	for _, tt := range []struct {
		want   string
		change func(*Config)
	}{
		{`the architecture "vax" is not known`, func(c *Config) { c.Arch = "vax" }},
		{`the machine type "virt" is not for x86_64`, func(c *Config) { c.Machine = MachineVirt }},
		{`the machine type "q35" is not for aarch64`, func(c *Config) { c.Arch, c.Machine = AArch64, MachineQ35 }},
		{`the machine type "microvm" needs KVM`, func(c *Config) { c.Machine = MachineMicroVM }},
		{`the accelerator "" is not known`, func(c *Config) { c.Accel = "" }},
		{"at least 1 CPU, not 0", func(c *Config) { c.CPUs = 0 }},
		{"at least 128 MiB of memory, not 64", func(c *Config) { c.MemoryMiB = 64 }},
		{"contains a control character", func(c *Config) { c.Name = "a\nb" }},
		{"the path of the kernel is missing", func(c *Config) { c.Kernel = "" }},
		{`the kernel parameter "a\x00b" is empty or`, func(c *Config) { c.Cmdline = []string{"a\x00b"} }},
		{"and Linux takes 2047", func(c *Config) { c.Cmdline = []string{strings.Repeat("x", 2047)} }},
		{`drive 1: the id "0" must be a letter`, func(c *Config) { c.Drives[0].ID = "0" }},
		{`drive 2: the id "store" is used twice`, func(c *Config) { c.Drives[1].ID = "store" }},
		{`drive "store": the path is missing`, func(c *Config) { c.Drives[0].Path = "" }},
		{`drive "store": the format "vmdk" is not known`, func(c *Config) { c.Drives[0].Format = "vmdk" }},
		{"is longer than 20 bytes", func(c *Config) { c.Drives[0].Serial = strings.Repeat("x", 21) }},
		{"share 1: the tag is missing", func(c *Config) { c.Shares[0].Tag = "" }},
		{"is longer than 36 bytes", func(c *Config) { c.Shares[0].Tag = strings.Repeat("x", 37) }},
		{`share 2: the tag "home" is used twice`, func(c *Config) { c.Shares[1].Tag = "home" }},
		{`share "home": the path of virtiofsd's socket is missing`, func(c *Config) { c.Shares[0].Socket = "" }},
		{"25 drives and shares are too many", func(c *Config) { c.Drives, c.Shares = nil, make([]Share, 25) }},
		{"is not a unicast MAC address", func(c *Config) { c.NIC.MAC = "01:00:5e:00:00:01" }},
		{"is not a unicast MAC address", func(c *Config) { c.NIC.MAC = "nonsense" }},
		{`"tcp" or "udp", not "sctp"`, forward(Forward{"sctp", "127.0.0.1", 1, 1})},
		{`and not of ""`, forward(Forward{"tcp", "", 2222, 22})},
		{`and not of "::1"`, forward(Forward{"tcp", "::1", 2222, 22})},
		{"the port 0 in a port forward", forward(Forward{"tcp", "127.0.0.1", 0, 22})},
		{"the port 65536 in a port forward", forward(Forward{"tcp", "127.0.0.1", 2222, 65536})},
		{"is forwarded twice", forward(ssh, ssh)},
		{"nothing that carries its frames", func(c *Config) { c.NIC.Backend = nil }},
		{"MTU 1501 is not between 68 and 1500", func(c *Config) { c.NIC.MTU = 1501 }},
		{"MTU 67 is not between 68 and 65535", datagrams(67, 7)},
		{"MTU 65536 is not between 68 and 65535", datagrams(65536, 7)},
		{"the network card's datagram socket is missing", datagrams(0, 0)},
		{"the inherited descriptor 3 is used twice", datagrams(0, 3)},
		{"the vsock address 2 is reserved", func(c *Config) { c.VsockCID = 2 }},
		{"the inherited descriptor 1 is not 3 or more", func(c *Config) { c.AgentFD = 1 }},
		{"the inherited descriptor 3 is used twice", func(c *Config) { c.AgentFD = c.MonitorFD }},
	} {
		t.Run(tt.want, func(t *testing.T) {
			c := full()
			tt.change(&c)
			if err := c.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Validate = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestValidateReportsEverythingAtOnce(t *testing.T) {
	err := Config{}.Validate()
	for _, want := range []string{"architecture", "accelerator", "CPU", "memory", "kernel"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate = %v, which does not mention %q", err, want)
		}
	}
}
