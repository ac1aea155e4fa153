package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/image/initrd"
	"github.com/sourcery-zone/sandbox/network/authority"
	"github.com/sourcery-zone/sandbox/qemu"
)

func TestRatioUsesMedians(t *testing.T) {
	ours := series{time.Second, 9 * time.Second, 2 * time.Second}
	theirs := series{4 * time.Second, 6 * time.Second}
	f := ratio("x", ours, theirs)
	if f.Value != 0.4 {
		t.Errorf("2 s / 5 s = %v", f.Value)
	}
	if met := *f.with(0.4).Met; !met {
		t.Error("a figure that equals its goal meets it")
	}
	if met := *f.with(0.39).Met; met {
		t.Error("a figure above its goal does not meet it")
	}
}

func TestFiguresAsJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bench.json")
	if err := writeFigures(path, []figure{figure{Name: "a", Value: 0.5, Unit: "ratio", detail: "d"}.with(1), {Name: "b", Value: 3, Unit: "MiB"}}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := json.Compact(&got, data); err != nil {
		t.Fatal(err)
	}
	const want = `[{"name":"a","value":0.5,"unit":"ratio","goal":1,"met":true},{"name":"b","value":3,"unit":"MiB","goal":null,"met":null}]`
	if got.String() != want {
		t.Errorf("got  %s\nwant %s", &got, want)
	}
}

func TestTableShowsWhatIsNotMet(t *testing.T) {
	var out bytes.Buffer
	if err := printTable(&out, []figure{figure{Name: "slow", Value: 2, Unit: "ratio"}.with(1.1)}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(strings.Fields(out.String()), " "); !strings.HasSuffix(got, "slow 2 ratio <= 1.1 NO") {
		t.Error(got)
	}
}

func TestFlagsNameMeasurementsThatExist(t *testing.T) {
	if _, err := parse([]string{"-only", "system-ready,boot-parallel"}); err != nil {
		t.Error(err)
	}
	if _, err := parse([]string{"-only", "beside", "-image", "nixos", "-beside", "debian"}); err != nil {
		t.Error(err)
	}
	for _, args := range [][]string{{"-only", "speed"}, {"-repeat", "0"}, {"more"}, {"-only", "beside"}, {"-nested", "-beside", "debian"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
}

func TestFlagsSuitAGuestInAGuestUnlessWritten(t *testing.T) {
	got, err := parse([]string{"-nested"})
	if err != nil || got.repeat != 2 || got.calls != 5 || !slices.Equal(got.only, nestedNames) {
		t.Errorf("-nested: %+v, %v", got, err)
	}
	got, err = parse([]string{"-nested", "-repeat", "3", "-only", "fork", "-timeout", "10m"})
	if err != nil || got.repeat != 3 || got.timeout != 10*time.Minute || !slices.Equal(got.only, []string{"fork"}) {
		t.Errorf("-nested with others: %+v, %v", got, err)
	}
	// All of them come to the program in the guest, which must not choose again.
	b := &bench{settings: got, img: &image.Image{Digest: "0"}}
	inner, err := parse(b.inner("figures.json"))
	got.nested, got.json, got.sandbox, got.image = false, inner.json, inner.sandbox, inner.image
	if err != nil || !reflect.DeepEqual(inner, got) {
		t.Errorf("in the guest: %+v, %v; want %+v", inner, err, got)
	}
}

func TestMicroVMNixUsesItsBoardOnlyUnderKVM(t *testing.T) {
	guest := nixGuest{accel: qemu.AccelKVM, cpus: 2, memoryMiB: 2560, kernel: "k", initrd: "i", store: "s", sshPort: 2222, monitor: "m"}
	kvm := strings.Join(guest.args(), " ")
	guest.accel = qemu.AccelTCG
	tcg := strings.Join(guest.args(), " ")
	if !strings.Contains(kvm, "-M microvm,accel=kvm:tcg,acpi=on,mem-merge=on,pcie=on,pic=off,pit=off,rtc=on,usb=off") || !strings.Contains(kvm, "-enable-kvm") {
		t.Error(kvm)
	}
	for _, impossible := range []string{"microvm", "kvm", "pic=off", "pit=off", "-cpu host"} {
		if strings.Contains(tcg, impossible) {
			t.Errorf("%s cannot run under TCG: %s", impossible, tcg)
		}
	}
}

func TestModulesOfAnInitialRAMDisk(t *testing.T) {
	modules := []initrd.Module{{Name: "b.ko", Data: []byte("B")}, {Name: "a.ko", Data: []byte("A")}}
	var image bytes.Buffer
	if err := initrd.Write(&image, initrd.Contents{Agent: []byte("x"), Modules: modules}); err != nil {
		t.Fatal(err)
	}
	got, err := readModules(&image)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Name != "b.ko" || string(got[1].Data) != "A" {
		t.Errorf("got %v", got)
	}
	var bare bytes.Buffer
	if err := initrd.Write(&bare, initrd.Contents{Agent: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if _, err := readModules(&bare); err == nil {
		t.Error("an archive without modules was taken")
	}
}

func TestCostOfAProcess(t *testing.T) {
	rss, pss, err := parseRollup(strings.NewReader("55d0-7ffc ---p 00000000 00:00 0 [rollup]\nRss:                2048 kB\nPss:                1024 kB\nPss_Dirty:   10 kB\n"))
	if err != nil || rss != 2<<20 || pss != 1<<20 {
		t.Error(rss, pss, err)
	}
	spent, err := parseStat("42 (a) b (c)) S 1 42 42 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 9 0 1 2 3")
	if err != nil || spent != 2*time.Second {
		t.Error(spent, err)
	}
	if _, err := parseStat("42 (x) S"); err == nil {
		t.Error("a torn line was taken")
	}
}

func TestConsoleFindsWordThatComesInPieces(t *testing.T) {
	c := newConsole()
	came := c.await("ready now")
	_, _ = c.Write([]byte("... rea"))
	select {
	case <-came:
		t.Fatal("too early")
	default:
	}
	_, _ = c.Write([]byte("dy now\n"))
	<-came
	<-c.await("ready")
}

func TestTheHostWhoseRequestsAreReadAnswers(t *testing.T) {
	internet, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	host, err := serve(func(c net.Conn) error { return answerRead(c, internet) })
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(internet.Certificate())
	over := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: host.Addr().String()}), TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer over.CloseIdleConnections()
	for range 2 {
		answer, err := (&http.Client{Transport: over}).Get("https://" + readHost + "/")
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(answer.Body); err != nil || string(text) != "1" {
			t.Errorf("it answers %q, %v", text, err)
		}
		answer.Body.Close()
	}
}
