package build

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/image/debian"
	"github.com/sourcery-zone/sandbox/image/nix"
	"github.com/sourcery-zone/sandbox/internal/remedy"
)

// directory is a new one, by its real path, that only the user may write.
func directory(t *testing.T, parts ...string) string {
	t.Helper()
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(append([]string{base}, parts...)...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestTheNearestFlakeIsChosen(t *testing.T) {
	below := directory(t, "project", "src")
	project := filepath.Dir(below)
	if ref, err := ChooseFlake("", below); err != nil || ref.String() != nix.Published {
		t.Errorf("without any: %v, %v", ref, err)
	}
	file := filepath.Join(project, nix.FlakeFile)
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for named, want := range map[string]string{"": project, project: project, project + "#dev": project + "#dev", "github:o/r": "github:o/r"} {
		if ref, err := ChooseFlake(named, below); err != nil || ref.String() != want {
			t.Errorf("%q: %v, %v; want %s", named, ref, err, want)
		}
	}
	// Nix would run what somebody else has written.
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := ChooseFlake("", below); err == nil || fmt.Sprint(remedy.Of(err)) != "[name-flake "+project+"]" {
		t.Errorf("a flake that everybody may write was found: %v", err)
	}
	if _, err := ChooseFlake(project, below); err != nil {
		t.Errorf("and was named: %v", err)
	}
}

// agent is what looks like one for this machine.
func agent(t *testing.T) string {
	t.Helper()
	header := elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Version: uint32(elf.EV_CURRENT), Ehsize: 64, Phentsize: 56, Shentsize: 64,
		Machine: uint16(map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]),
	}
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, header); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), AgentFile(arch()))
	if err := os.WriteFile(path, b.Bytes(), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func arch() string { return strings.TrimSuffix(image.HostSystem(), "-linux") }

func TestRecipeDoesNothingWhereItsImageIsUpToDate(t *testing.T) {
	store, err := image.OpenStore(directory(t, "images"))
	if err != nil {
		t.Fatal(err)
	}
	o := debian.Options{Suite: "trixie", Arch: arch(), Bare: true, Mirrors: []string{"http://mirror.invalid/debian"}, Agent: agent(t), CacheDir: t.TempDir()}
	inputs, err := o.Inputs()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := o.AgentDigest()
	if err != nil {
		t.Fatal(err)
	}
	dir := directory(t)
	describe := func(name string) image.File {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
		f, err := image.Describe(t.Context(), dir, name)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	m := image.Manifest{
		Version: image.Version, Name: "debian-bare", System: image.HostSystem(),
		Kernel: describe("kernel"), Initrd: describe("initrd.img"),
		Store: image.StoreFile{File: describe("store.erofs"), Format: "erofs", Label: "s", Mount: "/"},
		Init:  "/sbin/init", User: image.User{Name: "agent", UID: 1000, GID: 1000, Home: "/home/agent", Shell: "/bin/sh"},
		Cmdline: []string{"console=hvc0"}, Agent: image.Agent{Port: 1024},
		Provenance: image.Provenance{Builder: debian.Builder, Built: time.Unix(1, 0).UTC(), Inputs: inputs, AgentSHA: digest},
	}
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, image.ManifestFile), data, 0o644); err != nil {
		t.Fatal(err)
	}
	img, err := Install(t.Context(), store, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	built, err := Recipe(t.Context(), store, o)
	if err != nil || !built.UpToDate || built.Digest != img.Digest {
		t.Errorf("%+v, %v", built, err)
	}
	o.Packages = []string{"jq"}
	if again, err := upToDate(store, o); again != nil || err != nil {
		t.Errorf("with one package more: %v, %v", again, err)
	}
}

func TestImagesOfOtherKindsHaveOtherNames(t *testing.T) {
	other := map[string]string{"x86_64": "aarch64", "aarch64": "x86_64"}[arch()]
	for _, tt := range [][2]string{
		{RecipeName(arch(), false), "debian"},
		{RecipeName(arch(), true), "debian-bare"},
		{RecipeName(other, true), "debian-bare-" + other},
		{AgentFile(arch()), "sandbox-agent"},
		{AgentFile(other), "sandbox-agent-" + other},
	} {
		if tt[0] != tt[1] {
			t.Errorf("%s, want %s", tt[0], tt[1])
		}
	}
}

func ExampleRecipe() {
	dir, err := os.MkdirTemp("", "images")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	store, err := image.OpenStore(filepath.Join(dir, "images"))
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = Recipe(context.Background(), store, debian.Options{
		Suite: "trixie", Arch: "x86_64", Packages: []string{"golang"},
		Agent: "/nonexistent/sandbox-agent", CacheDir: filepath.Join(dir, "roots"),
	})
	fmt.Println(err)
	// Output: the guest's agent /nonexistent/sandbox-agent is not there
}
