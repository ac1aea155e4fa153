package qemu

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestArgsMatchGolden(t *testing.T) {
	kvm := func(c Config) Config { c.Accel = AccelKVM; return c }
	arm := func(c Config) Config { c.Arch = AArch64; return c }
	vsock := func(c Config) Config { c.VsockCID, c.VsockFD, c.AgentFD = 42, 20, 0; return c }
	inherited := func(c Config) Config {
		c.Drives[0].FD, c.Drives[1].FD, c.Drives[1].BackingFDs = 11, 12, []int{13, 14}
		return c
	}
	private := func(c Config) Config { c.MemoryFD, c.MemoryPrivate = 3, true; return c }
	datagrams := func(c Config) Config {
		c.NIC = &NIC{MAC: "52:54:00:12:34:56", MTU: 65520, Backend: DatagramSocket{FD: 7}}
		return c
	}
	plugged := func(c Config) Config {
		c.Ports = 9
		c.Shares = append(slices.Clone(c.Shares), Share{Tag: "share3", Socket: "/run/demo/share3.sock", Port: 2})
		return c
	}
	q35 := func(c Config) Config { c.Machine = MachineQ35; return c }
	for _, machine := range []struct {
		name   string
		arch   string
		config Config
	}{
		{"microvm-kvm", "x86_64", vsock(kvm(full()))},
		{"q35-kvm", "x86_64", q35(kvm(full()))},
		{"q35-tcg", "x86_64", full()},
		{"q35-tcg-minimal", "x86_64", minimal()},
		{"q35-tcg-inherited", "x86_64", inherited(full())},
		{"q35-tcg-plugged", "x86_64", plugged(full())},
		{"microvm-kvm-plugged", "x86_64", plugged(vsock(kvm(full())))},
		{"virt-tcg-plugged", "aarch64", plugged(arm(full()))},
		{"q35-tcg-private", "x86_64", private(minimal())},
		{"q35-tcg-datagrams", "x86_64", datagrams(full())},
		{"virt-tcg", "aarch64", arm(full())},
		{"virt-kvm", "aarch64", kvm(arm(full()))},
	} {
		for _, version := range []string{"7.2", "10.0"} {
			t.Run(machine.name+"-"+version, func(t *testing.T) {
				caps := capabilities(t, machine.arch+"-"+version)
				if machine.config.Accel == AccelKVM {
					// The recorded aarch64 binaries come from an x86-64 machine.
					caps.Accels = []Accel{AccelTCG, AccelKVM}
				}
				args, err := machine.config.Args(caps)
				if err != nil {
					t.Fatal(err)
				}
				compareGolden(t, filepath.Join("testdata", "argv", machine.name+"-"+version+".golden"), args)
			})
		}
	}
}

// compareGolden keeps one flag with its value a line, for diffs that can be read.
func compareGolden(t *testing.T, path string, args []string) {
	t.Helper()
	var b strings.Builder
	for i, arg := range args {
		switch {
		case i == 0:
		case strings.HasPrefix(arg, "-"):
			b.WriteByte('\n')
		default:
			b.WriteByte(' ')
		}
		b.WriteString(ShellQuote([]string{arg}))
	}
	b.WriteByte('\n')
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: run the test with -update to write it", err)
	}
	if b.String() != string(want) {
		t.Errorf("%s differs (run with -update if that is intended); got:\n%s", path, b.String())
	}
}

func TestArgsArePure(t *testing.T) {
	caps := capabilities(t, "x86_64-10.0")
	first, err := full().Args(caps)
	if err != nil {
		t.Fatal(err)
	}
	second, err := full().Args(caps)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(first, second) {
		t.Errorf("the same configuration gave\n%q and\n%q", first, second)
	}
}

func TestCallersKernelParametersComeLast(t *testing.T) {
	c := full()
	c.Cmdline = []string{"panic=10", "a=b,c"}
	args, err := c.Args(capabilities(t, "x86_64-10.0"))
	if err != nil {
		t.Fatal(err)
	}
	want := "console=hvc0 panic=-1 reboot=t panic=10 a=b,c"
	if i := slices.Index(args, "-append"); args[i+1] != want {
		t.Errorf("-append %q, want %q", args[i+1], want)
	}
}

func TestIDsAreNeverGivenOutTwice(t *testing.T) {
	a := &argv{}
	got := []string{a.id("net"), a.id("disk"), a.id("net")}
	if want := []string{"net0", "disk0", "net1"}; !slices.Equal(got, want) {
		t.Errorf("ids = %q, want %q", got, want)
	}
}

func TestArgsNameWhatTheBinaryLacks(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Config, *Capabilities)
		want   string
	}{
		"machine": {
			func(_ *Config, caps *Capabilities) { caps.Machines = []string{"none"} },
			`/usr/bin/qemu has no machine type "q35"`,
		},
		"firmware": {
			func(c *Config, caps *Capabilities) {
				c.Machine, c.Accel, caps.QBoot = MachineMicroVM, AccelKVM, ""
			},
			"/usr/bin/qemu has no firmware qboot.rom",
		},
		"accelerator": {
			func(_ *Config, caps *Capabilities) { caps.Accels = []Accel{AccelKVM} },
			`/usr/bin/qemu cannot use the accelerator "tcg": it has [kvm]`,
		},
		"seccomp": {
			func(_ *Config, caps *Capabilities) { caps.Options = []string{"help"} },
			"/usr/bin/qemu was built without seccomp",
		},
		"device": {
			func(c *Config, caps *Capabilities) {
				c.VsockCID = 3
				caps.Devices = slices.DeleteFunc(caps.Devices, func(d string) bool { return d == "vhost-vsock-pci" })
			},
			`/usr/bin/qemu has no device "vhost-vsock-pci"`,
		},
		"configuration": {
			func(c *Config, _ *Capabilities) { c.CPUs = 0 },
			"at least 1 CPU",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, caps := full(), capabilities(t, "x86_64-10.0")
			tt.change(&c, &caps)
			if _, err := c.Args(caps); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Args = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestMicroVMOnlyWhereItWorks(t *testing.T) {
	caps := capabilities(t, "x86_64-10.0")
	for _, tt := range []struct {
		config Config
		caps   Capabilities
		want   Machine
	}{
		{Config{Arch: X86_64, Accel: AccelKVM}, caps, MachineMicroVM},
		{Config{Arch: X86_64, Accel: AccelKVM}, Capabilities{Machines: []string{"q35"}, QBoot: caps.QBoot}, MachineQ35},
		{Config{Arch: X86_64, Accel: AccelKVM}, Capabilities{Machines: caps.Machines}, MachineQ35}, // without firmware
		{Config{Arch: X86_64, Accel: AccelTCG}, caps, MachineQ35},
		{Config{Arch: X86_64, Accel: AccelKVM, Machine: MachineQ35}, caps, MachineQ35},
		{Config{Arch: AArch64, Accel: AccelKVM}, caps, MachineVirt},
	} {
		if got := tt.config.ChooseMachine(tt.caps); got != tt.want {
			t.Errorf("%s under %s, asked for %q: %s, want %s", tt.config.Arch, tt.config.Accel, tt.config.Machine, got, tt.want)
		}
	}
}

func TestShellQuoteSurvivesAShell(t *testing.T) {
	got := ShellQuote([]string{"qemu", "-append", "a b", "it's", "", "x=y,z"})
	if want := `qemu -append 'a b' 'it'"'"'s' '' x=y,z`; got != want {
		t.Errorf("ShellQuote = %s, want %s", got, want)
	}
}

func TestIncomingMachineWaitsForItsState(t *testing.T) {
	c := full()
	caps := capabilities(t, "x86_64-10.0")
	booting, err := c.Args(caps)
	if err != nil {
		t.Fatal(err)
	}
	c.Incoming = true
	waiting, err := c.Args(caps)
	// The machine must be the same one in everything else.
	if want := append(booting, "-incoming", "defer", "-S"); err != nil || !slices.Equal(waiting, want) {
		t.Errorf("got %q, %v; want %q", waiting, err, want)
	}
}

func TestTheGuestIsToldSearchDomains(t *testing.T) {
	c := minimal()
	c.NIC = &NIC{MAC: "52:54:00:12:34:56", Backend: UserNetwork{Search: []string{"corp.example", "lab.example"}}}
	argv, err := c.Args(capabilities(t, "x86_64-10.0"))
	if err != nil {
		t.Fatal(err)
	}
	want := "user,id=net0,ipv6=off,dnssearch=corp.example,dnssearch=lab.example"
	if !slices.Contains(argv, want) {
		t.Errorf("%q lacks %q", argv, want)
	}
	for _, bad := range []UserNetwork{{Search: []string{"a b"}}, {Search: []string{""}}} {
		c.NIC.Backend = bad
		if c.Validate() == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}
