package qemu

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// argv collects a command line. Its methods are the only place where options are put together, so
// escaping cannot be forgotten.
type argv struct {
	args []string
	used map[string]int // ids given out, by stem
}

// flag adds a flag, with its value taken literally.
func (a *argv) flag(name string, value ...string) {
	a.args = append(append(a.args, name), value...)
}

// option adds a flag whose value is a comma-separated list: a leading word (left out if empty) and
// key/value pairs.
func (a *argv) option(name, word string, pairs ...string) {
	var list []string
	if word != "" {
		list = append(list, escape(word))
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		list = append(list, pairs[i]+"="+escape(pairs[i+1]))
	}
	a.flag(name, strings.Join(list, ","))
}

// object adds a flag whose value is a JSON object, which says what a list of pairs cannot: null, and what is nested.
func (a *argv) object(name string, value map[string]any) {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // strings, booleans and nil can be encoded
	}
	a.flag(name, string(text))
}

// id returns a name that no other call has returned: stem0, stem1, … The order of calls decides, so the
// same configuration gives the same ids.
func (a *argv) id(stem string) string { return stem + strconv.Itoa(a.number(stem)) }

// number returns how often it was called for the stem before.
func (a *argv) number(stem string) int {
	if a.used == nil {
		a.used = make(map[string]int)
	}
	n := a.used[stem]
	a.used[stem]++
	return n
}

// escape doubles commas, which is how QEMU takes them inside a value.
func escape(value string) string { return strings.ReplaceAll(value, ",", ",,") }

// fixedFlags are the same for every guest.
func fixedFlags() []struct{ name, value, reason string } {
	return []struct{ name, value, reason string }{
		{"-nodefaults", "", "no VGA, floppy, serial port or network card that nobody asked for: less to attack, faster boot"},
		{"-no-user-config", "", "the user's and the system's QEMU configuration must not change a sandbox"},
		{"-no-reboot", "", "a reboot or kernel panic ends QEMU, so its supervisor notices"},
		{"-action", "panic=none", "a kernel that panics still writes its last words before it reboots; QEMU's end would cut them off"},
		{"-display", "none", "no window, also where a display exists"},
		{
			"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
			"seccomp: a guest that breaks out into QEMU cannot run programs or gain privileges",
		},
	}
}

func addFixed(a *argv) {
	for _, f := range fixedFlags() {
		a.flag(f.name)
		if f.value != "" {
			a.flag(f.value)
		}
	}
}

// Args returns QEMU's arguments without the program's own name. It touches nothing outside its inputs.
// The error says what the configuration or the binary lacks.
func (c Config) Args(caps Capabilities) ([]string, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	machine := c.ChooseMachine(caps)
	if err := c.checkCapabilities(caps, machine); err != nil {
		return nil, err
	}
	a := &argv{}
	addFixed(a)
	if c.Name != "" {
		a.option("-name", "", "guest", c.Name)
	}
	c.addMachine(a, machine)
	c.addFirmware(a, machine, caps)
	c.addKernel(a, machine)
	c.addMonitor(a)
	c.addSerial(a)
	c.addEarlyConsole(a)
	addRandom(a)
	for _, d := range c.Drives {
		addDrive(a, d)
	}
	addPorts(a, c.Ports)
	for _, s := range c.Shares {
		addShare(a, s)
	}
	if c.NIC != nil {
		addNIC(a, *c.NIC)
	}
	if c.VsockCID != 0 {
		c.addVsock(a)
	}
	addBalloon(a)
	addPanic(a)
	if c.Incoming {
		a.flag("-incoming", "defer")
	}
	if c.Incoming || c.Paused {
		a.flag("-S") // it goes on when its supervisor says so, not when its state is there
	}
	return a.args, nil
}

// checkCapabilities finds what this QEMU cannot do before QEMU says it in its own words.
func (c Config) checkCapabilities(caps Capabilities, machine Machine) error {
	if !slices.Contains(caps.Machines, string(machine)) {
		return fmt.Errorf("%s has no machine type %q: choose another one, or install a complete QEMU %s",
			caps.Binary, machine, caps.Version)
	}
	if machine == MachineMicroVM {
		if err := caps.CheckFirmware(); err != nil {
			return fmt.Errorf("%w, or choose another machine type", err)
		}
	}
	if !slices.Contains(caps.Accels, c.Accel) {
		return fmt.Errorf("%s cannot use the accelerator %q: it has %v", caps.Binary, c.Accel, caps.Accels)
	}
	if !slices.Contains(caps.Options, "sandbox") {
		return fmt.Errorf("%s was built without seccomp, which confines QEMU: install your distribution's QEMU",
			caps.Binary)
	}
	for _, device := range c.devices() {
		if !slices.Contains(caps.Devices, device) {
			return fmt.Errorf("%s has no device %q, which this sandbox needs: install your distribution's complete QEMU",
				caps.Binary, device)
		}
	}
	return nil
}

// devices lists the models that Args will use.
func (c Config) devices() []string {
	list := []string{deviceRandom, deviceBalloon, devicePanic}
	if len(c.Drives) > 0 {
		list = append(list, deviceDrive)
	}
	if len(c.Shares) > 0 || c.Ports > 0 {
		list = append(list, deviceShare)
	}
	if c.Ports > 0 {
		list = append(list, devicePort)
	}
	if c.NIC != nil {
		list = append(list, deviceNetwork)
	}
	if c.VsockCID != 0 {
		list = append(list, deviceVsock)
	}
	if c.AgentFD != 0 || c.ConsoleFD != 0 {
		list = append(list, deviceSerial)
	}
	return list
}
