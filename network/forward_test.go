package network

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
)

func forward(ip string, host, guest int, proto string) Forward {
	return Forward{HostIP: netip.MustParseAddr(ip), HostPort: host, GuestPort: guest, Proto: proto}
}

func TestParseForward(t *testing.T) {
	for spec, want := range map[string]Forward{
		"8080:80":               forward("127.0.0.1", 8080, 80, "tcp"),
		"8080:80/tcp":           forward("127.0.0.1", 8080, 80, "tcp"),
		"5353:53/udp":           forward("127.0.0.1", 5353, 53, "udp"),
		"0:80":                  forward("127.0.0.1", 0, 80, "tcp"),
		"1:65535":               forward("127.0.0.1", 1, 65535, "tcp"),
		"0.0.0.0:8080:80":       forward("0.0.0.0", 8080, 80, "tcp"),
		"192.168.1.2:8080:80":   forward("192.168.1.2", 8080, 80, "tcp"),
		"[::1]:8080:80":         forward("::1", 8080, 80, "tcp"),
		"[::]:8080:80/udp":      forward("::", 8080, 80, "udp"),
		"[::ffff:1.2.3.4]:80:8": forward("1.2.3.4", 80, 8, "tcp"),
		"[127.0.0.2]:80:8":      forward("127.0.0.2", 80, 8, "tcp"),
	} {
		got, err := ParseForward(spec)
		if err != nil || got != want {
			t.Errorf("ParseForward(%q) = %+v, %v; want %+v", spec, got, err, want)
			continue
		}
		if again, err := ParseForward(got.String()); err != nil || again != got {
			t.Errorf("ParseForward(%q) = %+v, %v; want %+v again", got.String(), again, err, got)
		}
	}
}

func TestParseForwardTellsWhereTheMistakeIs(t *testing.T) {
	for spec, want := range map[string]string{
		"":                   "at character 1, a colon and the guest's port must follow",
		"8080":               "at character 5, a colon and the guest's port must follow",
		"127.0.0.1:80":       "at character 13, a colon and the guest's port must follow",
		":80":                `at character 1, "" is not a port from 0 to 65535`,
		"80:":                `at character 4, "" is not a port from 1 to 65535`,
		"80:0":               `at character 4, "0" is not a port from 1 to 65535`,
		"65536:80":           `at character 1, "65536" is not a port`,
		"80:65536":           `at character 4, "65536" is not a port`,
		"-1:80":              `at character 1, "-1" is not a port`,
		"+1:80":              `at character 1, "+1" is not a port`,
		"80: 80":             `at character 4, " 80" is not a port`,
		"http:80":            `at character 1, "http" is not a port`,
		"8000-8010:80":       `at character 1, "8000-8010" is not a port`,
		"localhost:80:80":    `at character 1, "localhost" is not an IP address, such as 127.0.0.1`,
		":8080:80":           "at character 1, the address is empty (to listen on all, write 0.0.0.0)",
		"1.2.3:80:80":        `at character 1, "1.2.3" is not an IP address`,
		"1.2.3.4:x:80":       `at character 9, "x" is not a port`,
		"1.2.3.4:80:x":       `at character 12, "x" is not a port`,
		"::1:8080:80":        "at character 5, there is one part too many",
		"1.2.3.4:80:80:80":   "at character 15, there is one part too many",
		"[::1:80:80":         "at character 1, the bracket around the address is not closed",
		"[::1]80:80":         "at character 6, a colon and the host's port must follow the address",
		"[::1]":              "at character 6, a colon and the host's port must follow the address",
		"[::1]:80":           "at character 9, a colon and the guest's port must follow",
		"[::1]:80:x":         `at character 10, "x" is not a port`,
		"[]:80:80":           "at character 2, the address is empty",
		"[größe]:80:80":      `at character 2, "größe" is not an IP address`,
		"8080:80/sctp":       `at character 9, "sctp" is neither tcp nor udp`,
		"8080:80/":           `at character 9, "" is neither tcp nor udp`,
		"8080:80/udp/tcp":    `at character 9, "udp/tcp" is neither tcp nor udp`,
		"0.0.0.0:80:80/UDP ": `at character 15, "UDP " is neither tcp nor udp`,
	} {
		_, err := ParseForward(spec)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), forwardExample) {
			t.Errorf("ParseForward(%q): %v; want %q and the example", spec, err, want)
		}
	}
}

func FuzzParseForward(f *testing.F) {
	for _, spec := range []string{"8080:80", "[::1]:1:2/udp", "1.2.3.4:0:1", "[]:", ":::", "/"} {
		f.Add(spec)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		forward, err := ParseForward(spec)
		if err != nil {
			return
		}
		if again, err := ParseForward(forward.String()); err != nil || again != forward {
			t.Errorf("%q gives %+v, whose specification %q gives %+v, %v", spec, forward, forward.String(), again, err)
		}
	})
}

func TestForwardSurvivesJSON(t *testing.T) {
	want := forward("::1", 8080, 80, "udp")
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if text := `{"hostIP":"::1","hostPort":8080,"guestPort":80,"proto":"udp"}`; string(b) != text {
		t.Errorf("got %s, want %s", b, text)
	}
	var got Forward
	if err := json.Unmarshal(b, &got); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestCheckConflicts(t *testing.T) {
	for _, test := range []struct {
		a, b     string
		conflict bool
	}{
		{"8080:80", "8080:81", true},
		{"8080:80", "8081:80", false},
		{"8080:80", "8080:80/udp", false},
		{"53:53/udp", "53:54/udp", true},
		{"0:80", "0:81", false},
		{"8080:80", "127.0.0.2:8080:80", false},
		{"8080:80", "0.0.0.0:8080:80", true},
		{"0.0.0.0:8080:80", "10.0.0.1:8080:80", true},
		{"0.0.0.0:8080:80", "[::1]:8080:80", false},
		{"[::]:8080:80", "[::1]:8080:80", true},
		{"[::]:8080:80", "8080:80", true},
	} {
		a, errA := ParseForward(test.a)
		b, errB := ParseForward(test.b)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		for _, forwards := range [][]Forward{{a, b}, {b, a}, {a, forward("127.0.0.1", 9, 9, "tcp"), b}} {
			err := CheckConflicts(forwards)
			if (err != nil) != test.conflict {
				t.Errorf("%v: %v; want a conflict: %t", forwards, err, test.conflict)
			}
			if err != nil && (!strings.Contains(err.Error(), a.String()) || !strings.Contains(err.Error(), b.String())) {
				t.Errorf("%v: %v does not name both", forwards, err)
			}
		}
	}
	if err := CheckConflicts(nil); err != nil {
		t.Error(err)
	}
}
