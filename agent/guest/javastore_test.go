//go:build linux

package guest

import (
	"bytes"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/network/authority"
)

// certificate is one of an authority, in PEM.
func certificate(t *testing.T) []byte {
	t.Helper()
	a, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	return a.Certificate()
}

func TestJavaBelievesTheHostsCertificates(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, javaStore)
	if err := trustCertificates(root, certificate(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Fatal("a guest without Java has a list of its")
	}
	// What Debian's package makes of its certificates, here one.
	public := certificate(t)
	empty := binary.BigEndian.AppendUint64(nil, javaMagic<<32|javaVersion)
	before, err := javaStoreWith(binary.BigEndian.AppendUint32(empty, 0), public)
	if err != nil {
		t.Fatal(err)
	}
	before = bytes.Replace(before, []byte(javaAlias), []byte("debian-public"), 1)
	before = append(before[:len(before)-20], javaDigest(before[:len(before)-20])...)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, before, 0o644)); err != nil {
		t.Fatal(err)
	}
	first, second := certificate(t), append(certificate(t), certificate(t)...)
	for _, own := range [][]byte{first, first, second, nil} {
		if err := trustCertificates(root, own); err != nil {
			t.Fatal(err)
		}
		store, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if own == nil && !bytes.Equal(store, before) {
			t.Error("of certificates that were taken away, there is something left")
		}
		for _, c := range [][]byte{public, first, second} {
			want := bytes.Equal(c, public) || bytes.Equal(c, own)
			for block, rest := pem.Decode(c); block != nil; block, rest = pem.Decode(rest) {
				if got := bytes.Contains(store, block.Bytes); got != want {
					t.Errorf("a certificate is in the store: %v, want %v", got, want)
				}
			}
		}
		// Java itself, where there is one.
		if keytool, err := exec.LookPath("keytool"); err == nil {
			out, err := exec.Command(keytool, "-list", "-keystore", path, "-storepass", javaPassword).CombinedOutput()
			if n := strings.Count(string(out), "trustedCertEntry"); err != nil || n != 1+bytes.Count(own, []byte("BEGIN")) {
				t.Errorf("%v\n%s", err, out)
			}
		}
	}
}

func TestAListOfJavasThatIsNotDebiansIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cacerts")
	empty := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, javaMagic<<32|javaVersion), 0)
	for name, store := range map[string][]byte{
		"nothing":          nil,
		"PKCS #12":         append([]byte{0x30, 0x82}, make([]byte, 100)...),
		"another password": append(bytes.Clone(empty), make([]byte, 20)...),
	} {
		if err := os.WriteFile(path, store, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := addToJavaStore(path, certificate(t)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, store) {
			t.Errorf("%s: it is changed, %v", name, err)
		}
	}
	for name, store := range map[string][]byte{
		"a key":         append(append(empty[:11:11], 1), 0, 0, 0, 1, 0, 1, 'a'),
		"an end":        append(append(empty[:11:11], 1), 0, 0, 0, 2, 0, 9, 'a'),
		"a size beyond": append(append(empty[:11:11], 1), append(make([]byte, 3), 2, 0, 1, 'a', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff)...),
	} {
		if err := os.WriteFile(path, append(store, javaDigest(store)...), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := addToJavaStore(path, certificate(t)); err == nil {
			t.Errorf("%s is taken for certificates", name)
		}
	}
}
