//go:build linux

package guest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"golang.org/x/sys/unix"
)

func TestClockGoesBackLittleByLittleOnly(t *testing.T) {
	for advance, want := range map[time.Duration]unix.Timex{
		300 * time.Millisecond:   {Modes: unix.ADJ_SETOFFSET | unix.ADJ_NANO, Time: unix.Timeval{Usec: 300_000_000}},
		2500 * time.Millisecond:  {Modes: unix.ADJ_SETOFFSET | unix.ADJ_NANO, Time: unix.Timeval{Sec: 2, Usec: 500_000_000}},
		-2500 * time.Millisecond: {Modes: unix.ADJ_SETOFFSET | unix.ADJ_NANO, Time: unix.Timeval{Sec: -3, Usec: 500_000_000}},
		-3 * time.Second:         {Modes: unix.ADJ_SETOFFSET | unix.ADJ_NANO, Time: unix.Timeval{Sec: -3}},
		-20 * time.Millisecond:   {Modes: unix.ADJ_OFFSET_SINGLESHOT, Offset: -20_000},
	} {
		steps := clockSteps(advance)
		if got := steps[len(steps)-1]; got != want {
			t.Errorf("%v: %+v, want %+v", advance, got, want)
		}
		if steps[0].Modes != unix.ADJ_OFFSET_SINGLESHOT {
			t.Errorf("%v: what an earlier call has still to work off goes on", advance)
		}
	}
}

func TestTimeZoneIsTheHostsUnlessSomebodyChoseOne(t *testing.T) {
	const known = "/usr/share/zoneinfo/Europe/Stockholm"
	root := t.TempDir()
	for _, dir := range []string{"/etc", filepath.Dir(known)} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, root+known, "TZif of the guest")
	write(t, root+"/etc/timezone", "Etc/UTC\n")
	link := func(zone string) {
		if err := replaceLink(root+localTime, "../usr/share/zoneinfo/"+zone); err != nil {
			t.Fatal(err)
		}
	}
	set := func(zone agent.TimeZone, want string) {
		t.Helper()
		if err := setTimeZone(root, zone); err != nil {
			t.Fatal(err)
		}
		if got := zoneOf(root); got != want {
			t.Errorf("the zone is %q, want %q", got, want)
		}
	}
	stockholm := agent.TimeZone{Name: "Europe/Stockholm", Data: []byte("TZif")}
	set(agent.TimeZone{}, "")
	link("Etc/UTC")
	set(stockholm, "Europe/Stockholm")
	if got, err := os.ReadFile(root + "/etc/timezone"); err != nil || string(got) != "Europe/Stockholm\n" {
		t.Errorf("/etc/timezone: %q, %v", got, err)
	}
	// The next boot of a guest with a disk, on a host that has moved to where
	// the guest does not know the zone, and then to one without a name.
	set(agent.TimeZone{Name: "Mars/Olympus", Data: []byte("TZif of Mars")}, "Mars/Olympus")
	if got, err := os.ReadFile(root + "/usr/share/zoneinfo/Mars/Olympus"); err != nil || string(got) != "TZif of Mars" {
		t.Errorf("the unknown zone: %q, %v", got, err)
	}
	set(agent.TimeZone{Data: []byte("TZif 1")}, "Host")
	set(agent.TimeZone{Data: []byte("TZif 2")}, "Host")
	if got, err := os.ReadFile(root + "/usr/share/zoneinfo/Host"); err != nil || string(got) != "TZif 2" {
		t.Errorf("the nameless zone: %q, %v", got, err)
	}
	// The user's choice stays, also if it is the image's again.
	link("UTC")
	set(stockholm, "UTC")

	if err := os.Remove(root + zoneNote); err != nil {
		t.Fatal(err)
	}
	link("America/New_York") // the image's
	set(stockholm, "America/New_York")
	for _, name := range []string{"../../etc/passwd", "/etc/passwd", "a\nb"} {
		if checkTimeZone(agent.TimeZone{Name: name}) == nil {
			t.Errorf("%q is the name of a zone", name)
		}
	}
}
