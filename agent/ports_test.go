package agent

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPortsOfAHostileGuestAreBounded(t *testing.T) {
	var many []Port
	for i := range 10_000 {
		many = append(many, Port{Number: uint16(20_000 - i), Program: strings.Repeat("x", 1000)})
	}
	ports := boundPorts(many)
	if len(ports) != MaxPorts || ports[0].Number != 10_001 || ports[MaxPorts-1].Number != 10_000+MaxPorts {
		t.Errorf("got %d ports, from %v to %v", len(ports), ports[0], ports[len(ports)-1])
	}
	if len(ports[0].Program) > maxProgram {
		t.Errorf("a program's name has %d bytes", len(ports[0].Program))
	}
	got := boundPorts([]Port{{Number: 3, Program: "\x1b]0;you\a\u202etxt.\xff\n"}, {Number: 0}, {Number: 1, Loopback: true}, {Number: 3}})
	want := []Port{{Number: 1, Loopback: true}, {Number: 3, Program: "]0;youtxt."}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if !utf8.ValidString(got[1].Program) {
		t.Error("a program's name is no text")
	}
}
