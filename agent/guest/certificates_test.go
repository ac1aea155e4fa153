//go:build linux

package guest

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const publicCertificate = "-----BEGIN CERTIFICATE-----\npublic\n-----END CERTIFICATE-----"

// bundles are all files in which certificates stand, with what is in them.
func bundles(t *testing.T, root string) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, path := range append(slices.Clone(otherBundles), bundle, ownCertificates) {
		if text, err := os.ReadFile(filepath.Join(root, path)); err == nil {
			texts[path] = string(text)
		}
	}
	return texts
}

func TestCertificatesAreAddedToWhatTheGuestBelieves(t *testing.T) {
	root := t.TempDir()
	store := filepath.Join(root, "store.crt")
	for _, dir := range []string{"/etc/ssl/certs", "/etc/pki/tls/certs"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	write(store, publicCertificate)
	// As in NixOS, where all lead to one file that cannot be changed.
	for _, path := range []string{bundle, "/etc/pki/tls/certs/ca-bundle.crt"} {
		if err := os.Symlink(store, filepath.Join(root, path)); err != nil {
			t.Fatal(err)
		}
	}
	if err := trustCertificates(root, nil); err != nil {
		t.Fatal(err)
	}
	if settings := certificateSettings(root); settings != nil {
		t.Errorf("without certificates, programs are told of them: %q", settings)
	}
	for _, own := range []string{"first", "first", "second\n"} {
		if err := trustCertificates(root, []byte(own)); err != nil {
			t.Fatal(err)
		}
		for path, text := range bundles(t, root) {
			want := publicCertificate + "\n" + ownBegin + strings.TrimSuffix(own, "\n") + "\n" + ownEnd
			if path == ownCertificates {
				want = own
			}
			if text != want {
				t.Errorf("%s has\n%s\nwant\n%s", path, text, want)
			}
		}
	}
	if len(bundles(t, root)) != 3 {
		t.Errorf("there are %v", bundles(t, root))
	}
	if settings := certificateSettings(root); !slices.Contains(settings, "SSL_CERT_FILE="+bundle) || !slices.Contains(settings, "NODE_EXTRA_CA_CERTS="+ownCertificates) {
		t.Errorf("programs are told %q", settings)
	}
	if text, err := os.ReadFile(store); err != nil || string(text) != publicCertificate {
		t.Errorf("the store has %s, %v", text, err)
	}
	if err := trustCertificates(root, nil); err != nil {
		t.Fatal(err)
	}
	if texts := bundles(t, root); len(texts) != 2 || texts[bundle] != publicCertificate+"\n" {
		t.Errorf("of certificates that were taken away, there is left %q", texts)
	}
}

func TestCertificatesInAGuestThatBelievesNobody(t *testing.T) {
	root := t.TempDir()
	if err := trustCertificates(root, []byte("own\n")); err != nil {
		t.Fatal(err)
	}
	if texts := bundles(t, root); len(texts) != 2 || texts[bundle] != ownBegin+"own\n"+ownEnd {
		t.Errorf("%q", texts)
	}
}

// TestCertificatesAreAddedAgain plays who makes the files anew: by a link to what is a store's, as NixOS does, or another file.
func TestCertificatesAreAddedAgain(t *testing.T) {
	root := t.TempDir()
	store := filepath.Join(root, "store.crt")
	if err := os.WriteFile(store, []byte(publicCertificate+"\n"), 0o444); err != nil {
		t.Fatal(err)
	}
	anew := func(path string) {
		t.Helper()
		fresh := filepath.Join(root, path+".tmp")
		for _, err := range []error{os.MkdirAll(filepath.Dir(fresh), 0o755), os.Symlink(store, fresh), os.Rename(fresh, filepath.Join(root, path))} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	const other = "/etc/pki/tls/certs/ca-bundle.crt"
	anew(bundle)
	var c certificates
	if err := c.trust(root, []byte("own\n")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.keep(ctx, root, slog.New(slog.DiscardHandler))
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	has := func(path string) bool { return strings.Contains(bundles(t, root)[path], ownBegin+"own\n") }
	for _, path := range []string{bundle, other, bundle, other} {
		anew(path)
		for deadline := time.Now().Add(time.Minute); !has(path); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s has\n%s", path, bundles(t, root)[path])
			}
		}
	}
	if err := c.trust(root, nil); err != nil {
		t.Fatal(err)
	}
	anew(bundle)
	if err := c.again(root); err != nil || has(bundle) || has(other) {
		t.Errorf("certificates that were taken away are added again, %v", err)
	}
}
