package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/network/aws"
	"github.com/sourcery-zone/sandbox/network/secret"
)

func secretValue(t *testing.T, text string) secret.Value {
	t.Helper()
	if text == "" {
		return secret.Value{}
	}
	value, err := secret.NewValue(text)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func secretFile(t *testing.T, text string) *os.File {
	t.Helper()
	f, err := secretValue(t, text).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestValuesAreGotAgainInTime(t *testing.T) {
	nothing := errors.New("there is nothing now")
	type step struct {
		after time.Duration // since the one before
		value string        // that the source has from then on
		err   error
		guest string // what the guest's requests have then
	}
	for name, test := range map[string]struct {
		source source
		begins string
		steps  []step
		logged int
	}{
		"one that lives for a time": {source{life: 10 * time.Minute, holds: true}, "one", []step{
			{time.Second, "two", nil, "one"},
			{9 * time.Minute, "two", nil, "one"},
			{2 * time.Minute, "two", nil, "two"},
			{time.Second, "", nothing, "two"},
			{11 * time.Minute, "", nothing, "two"},    // as a source may come back
			{90 * time.Second, "three", nil, "three"}, // before its time would be over
		}, 1},
		"a login": {source{}, "one", []step{
			{time.Second, "two", nil, "one"},
			{valueLook, "two", nil, "two"},
			{valueLook, "two", nothing, "two"}, // a provider that does not answer
			{time.Second, "", nothing, "two"},
			{2 * valueRetry, "", nothing, ""},
			{time.Second, "three", nil, ""},
			{2 * valueRetry, "three", nil, "three"},
		}, 1},
		"one that begins with nothing": {source{}, "", []step{{time.Second, "one", nil, ""}, {valueLook, "one", nil, "one"}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var value secret.Value
				var failed error
				test.source.name = "ONE"
				test.source.value = func(context.Context) (secret.Value, error) {
					mu.Lock()
					defer mu.Unlock()
					return value, failed
				}
				var log strings.Builder
				guest := secretValue(t, test.begins)
				v := &supervisor{log: slog.New(slog.NewTextHandler(&log, nil)), values: values{files: map[string]*os.File{}}}
				fd := ^uintptr(0)
				if test.begins != "" {
					v.values.files["ONE"] = secretFile(t, test.begins)
					fd = v.values.files["ONE"].Fd()
				}
				v.values.tell = func(name string, f *os.File) (err error) {
					mu.Lock()
					defer mu.Unlock()
					guest = secret.Value{}
					if f != nil {
						guest, err = secret.ReadFile(f)
					}
					return err
				}
				ctx, cancel := context.WithCancel(t.Context())
				v.values.end = cancel
				v.values.kept.Go(func() { v.keepValue(ctx, test.source) })
				for i, s := range test.steps {
					mu.Lock()
					value, failed = secretValue(t, s.value), s.err
					mu.Unlock()
					time.Sleep(s.after)
					synctest.Wait()
					mu.Lock()
					if guest.Reveal() != s.guest || v.values.now("ONE") != guest {
						t.Errorf("after step %d, the guest has %q, and the next process would have %q", i, guest.Reveal(), v.values.now("ONE").Reveal())
					}
					mu.Unlock()
				}
				v.closeValues()
				if f := v.values.files["ONE"]; fd != ^uintptr(0) && f.Fd() != fd {
					t.Error("the next run would find another descriptor")
				}
				if n := strings.Count(log.String(), "level=WARN"); n != test.logged || strings.Contains(log.String(), "two") {
					t.Errorf("the log says it %d times:\n%s", n, log.String())
				}
			})
		})
	}
}

// Its source may have been asked before.
func TestARevokedSecretStaysLost(t *testing.T) {
	v := &supervisor{values: values{files: map[string]*os.File{"ONE": secretFile(t, "before")}}}
	v.values.tell = func(_ string, f *os.File) error {
		if f != nil {
			t.Error("the network's process has it again")
		}
		return nil
	}
	v.config.Revoked = []string{"ONE"}
	if err := v.values.set("ONE", secret.Value{}); err != nil {
		t.Fatal(err)
	}
	if err := v.setValue("ONE", secretValue(t, "too-late")); err != nil || !v.values.now("ONE").IsZero() {
		t.Errorf("it is there again: %v", err)
	}
}

func TestOnlyWhatDoesNotLastIsGotAgain(t *testing.T) {
	v := &supervisor{config: machine.Config{Access: machine.Access{Revoked: []string{"GONE"}, Secrets: []string{
		"LASTS@a.example", "GONE=command:x@a.example,ttl=1h", "TOKEN=command:x@a.example,ttl=1h", "CLAUDE_LOGIN=login:claude@api.anthropic.com",
	}}}}
	all, err := v.sources()
	var names []string
	for _, s := range all {
		names = append(names, s.name)
	}
	if err != nil || !slices.Equal(names, []string{"TOKEN", "CLAUDE_LOGIN"}) || all[0].life != time.Hour || !all[0].holds || all[1].holds {
		t.Errorf("these are: %+v, %v", all, err)
	}
}

// TestTheKeyOfAProfileIsGotAgainBeforeItEnds has a program that prints another key each time, as credential_process is.
func TestTheKeyOfAProfileIsGotAgainBeforeItEnds(t *testing.T) {
	dir := t.TempDir()
	count := filepath.Join(dir, "count")
	program := fmt.Sprintf(`[profile work]
credential_process = sh -c 'echo >> %[1]s; printf "{\"Version\":1,\"AccessKeyId\":\"AKIA%%d\",\"SecretAccessKey\":\"s\",\"SessionToken\":\"t\",\"Expiration\":\"2100-01-01T00:00:00Z\"}" $(wc -l < %[1]s)'
`, count)
	config := filepath.Join(dir, "config")
	if err := os.WriteFile(config, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CONFIG_FILE", config)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	spec, err := secret.Parse("aws:work")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		left time.Duration // zero: for ever
		want string
	}{{0, "AKIA0"}, {time.Hour, "AKIA0"}, {4 * time.Minute, "AKIA1"}, {-time.Hour, "AKIA2"}} {
		held := aws.Credentials{AccessKeyID: "AKIA0", SecretAccessKey: "s"}
		if tt.left != 0 {
			held.Expiration = time.Now().Add(tt.left)
		}
		v := &supervisor{host: &machine.Host{}, values: values{files: map[string]*os.File{spec.Name: secretFile(t, held.String())}}}
		value, err := v.keyOfAWS(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		if key, err := value.AWS(); err != nil || key.AccessKeyID != tt.want {
			t.Errorf("with %v left, the key is %s, %v; want %s", tt.left, key.AccessKeyID, err, tt.want)
		}
	}
}
