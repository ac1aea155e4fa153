package qmp_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sourcery-zone/sandbox/qmp"
	"github.com/sourcery-zone/sandbox/qmp/qmptest"
)

func TestParseScriptNamesWhatIsWrong(t *testing.T) {
	tests := map[string]string{
		`query-status`:           "each line is one JSON object",
		`{"execute": "stop"} {}`: "something after the JSON object",
		`{}`:                     "exactly one of",
		`{"execute": "stop", "wait-for-job": "x"}`:                     "exactly one of",
		`{"execute": "stop", "argument": {}}`:                          `unknown field "argument"`,
		`{"execute": "stop", "match": {}}`:                             "match does not go with execute",
		`{"wait-for-job": "x", "set": {"a": ""}}`:                      "set does not go with wait-for-job",
		`{"execute": "stop", "timeout": "soon"}`:                       `timeout is "soon"`,
		`{"execute": "stop", "timeout": "-1s"}`:                        `timeout is "-1s"`,
		`{"execute": "stop", "expect-error": ""}`:                      "expect-error is empty",
		`{"execute": "stop", "expect-error": "x", "expect": {}}`:       "do not go with expect-error",
		`{"execute": "stop", "set": {"1st": "/a"}}`:                    `the variable "1st"`,
		`{"execute": "stop", "set": {"a": "b"}}`:                       `no JSON pointer: write "/b"`,
		`{"execute": "stop", "arguments": {"a": ["$nobody"]}}`:         "the variable $nobody is not set",
		`{"execute": "stop", "arguments": {"a": "costs ${nobody} x"}}`: "the variable $nobody is not set",
		`{"execute": "stop", "arguments": {"a": "5 $"}}`:               "a plain dollar is $$",
	}
	for text, want := range tests {
		_, err := qmp.ParseScript("steps.qmp", strings.NewReader("# a comment\n\n"+text+"\n"), nil)
		if err == nil || !strings.HasPrefix(err.Error(), "steps.qmp:3: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
	_, err := qmp.ParseScript("two.qmp", strings.NewReader("{}\n{}\n"), nil)
	if err == nil || !strings.Contains(err.Error(), "two.qmp:1:") || !strings.Contains(err.Error(), "two.qmp:2:") {
		t.Errorf("two errors: %v", err)
	}
}

func parse(t *testing.T, text string, variables ...string) *qmp.Script {
	t.Helper()
	s, err := qmp.ParseScript("test.qmp", strings.NewReader(text), variables)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestScriptRunsOnQEMU(t *testing.T) {
	ctx, client, _ := connectQEMU(t)
	dir := t.TempDir()
	script := parse(t, `
# Events wait for whoever waits for them, in order.
{"execute": "stop"}
{"execute": "query-status", "expect": {"status": "paused", "running": false}, "set": {"state": "/status"}}
{"execute": "cont"}
{"wait-for-event": "STOP", "timeout": "10s"}
{"wait-for-event": "RESUME"}
{"execute": "query-version", "expect": {"qemu": {}, "missing": null}, "set": {"major": "/qemu/major"}}
{"execute": "query-version", "expect": {"qemu": {"major": "$major"}}}
{"execute": "query-commands", "expect": [{"name": "quit"}, {"name": "stop"}]}
{"execute": "query-jobs", "expect": []}
{"execute": "device_del", "arguments": {"id": "no $$ $state"}, "expect-error": "no $ paused"}
{"execute": "blockdev-create", "arguments": {"job-id": "a", "options": {"driver": "file", "filename": "$dir/$major", "size": 1048576}}}
{"wait-for-job": "a"}
{"execute": "blockdev-create", "arguments": {"job-id": "b", "options": {"driver": "file", "filename": "${dir}/none/disk", "size": 1048576}}}
{"wait-for-event": "JOB_STATUS_CHANGE", "match": {"id": "b", "status": "concluded"}, "set": {"job": "/id"}}
{"wait-for-job": "$job", "expect-error": "No such file"}
`, "dir")
	var steps int
	o := qmp.RunOptions{Variables: map[string]any{"dir": dir}, Report: func(qmp.Step, any) { steps++ }}
	if err := script.Run(ctx, client, o); err != nil {
		t.Fatal(err)
	}
	if steps != len(script.Steps) {
		t.Errorf("%d of %d steps were reported", steps, len(script.Steps))
	}
	major := fmt.Sprint(client.Greeting().Version.QEMU.Major)
	if _, err := os.Stat(filepath.Join(dir, major)); err != nil {
		t.Error(err)
	}
}

func TestScriptFailsWithTheLineAndTheKind(t *testing.T) {
	ctx, client, _ := connectQEMU(t)
	var (
		refused *qmp.Error
		failed  *qmp.JobError
	)
	create := fmt.Sprintf(`{"execute": "blockdev-create", "arguments": {"job-id": "x", "options": {"driver": "file", "filename": %q, "size": 1}}}`, filepath.Join(t.TempDir(), "none", "x"))
	tests := []struct {
		name, text, want string
		kind             func(error) bool
	}{
		{
			"a refusal", `{"execute": "device_del", "arguments": {"id": "x"}}`, "test.qmp:1:",
			func(err error) bool { return errors.As(err, &refused) },
		},
		{
			"an assertion", `{"execute": "query-status", "expect": {"status": "paused"}}`, `/status is running, and paused was expected`,
			func(err error) bool { return errors.Is(err, qmp.ErrUnexpected) },
		},
		{
			"a missing element", `{"execute": "query-commands", "expect": [{"name": "dance"}]}`, `no element {"name":"dance"}`,
			func(err error) bool { return errors.Is(err, qmp.ErrUnexpected) },
		},
		{
			"nothing to set", `{"execute": "query-status", "set": {"x": "/nobody"}}`, `cannot set x`,
			func(err error) bool { return errors.Is(err, qmp.ErrUnexpected) },
		},
		{
			"unexpected success", `{"execute": "stop", "expect-error": "x"}`, "it succeeded",
			func(err error) bool { return errors.Is(err, qmp.ErrUnexpected) },
		},
		{
			"another error", `{"execute": "device_del", "arguments": {"id": "x"}, "expect-error": "busy"}`, "it was: QEMU refused",
			func(err error) bool { return errors.Is(err, qmp.ErrUnexpected) },
		},
		{
			"a time-out", `{"wait-for-event": "SHUTDOWN", "timeout": "10ms"}`, "longer than 10ms",
			func(err error) bool { return errors.Is(err, context.DeadlineExceeded) },
		},
		{
			"a job that nobody waits for", create, "test.qmp:1:",
			func(err error) bool { return errors.As(err, &failed) },
		},
		{
			"a job that does not exist", `{"wait-for-job": "nobody"}`, `no job "nobody"`,
			func(err error) bool { return true },
		},
	}
	for _, test := range tests {
		err := parse(t, test.text).Run(ctx, client, qmp.RunOptions{})
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "test.qmp:1: ") || !test.kind(err) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestScriptMayEndQEMU(t *testing.T) {
	ctx, client, cmd := connectQEMU(t)
	if err := parse(t, `{"execute": "quit"}`+"\n"+`{"wait-for-event": "SHUTDOWN"}`).Run(ctx, client, qmp.RunOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestDangerIsWhatIsNotKnownToBeHarmless(t *testing.T) {
	for _, command := range []string{
		"quit", "human-monitor-command", "migrate", "migrate-incoming", "device_add", "netdev_add", "chardev-add",
		"object-add", "blockdev-add", "dump-guest-memory", "pmemsave", "screendump", "transaction", "invented-tomorrow",
	} {
		if qmp.Risk(command) == "" {
			t.Errorf("%s is taken for harmless", command)
		}
	}
	for _, command := range []string{"query-status", "stop", "system_reset", "snapshot-save", "job-dismiss"} {
		if reason := qmp.Risk(command); reason != "" {
			t.Errorf("%s %s", command, reason)
		}
	}
	err := parse(t, `{"execute": "stop"}`+"\n"+`{"execute": "migrate"}`).Danger()
	if err == nil || !strings.HasPrefix(err.Error(), "test.qmp:2: migrate sends") {
		t.Errorf("got %v", err)
	}
}

func TestSchemaOffersCommandsAndArguments(t *testing.T) {
	ctx, client, _ := connectQEMU(t)
	schema, err := client.Schema(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(schema.Commands()) < 100 {
		t.Errorf("%d commands", len(schema.Commands()))
	}
	got := fmt.Sprint(schema.Arguments("watchdog-set-action"))
	if !strings.HasPrefix(got, "[{action [") || !strings.Contains(got, "shutdown") {
		t.Errorf("got %s", got)
	}
}

// A script's own time-outs are the only clock, so this one must end by the step's.
func TestScriptsTimeoutIsTheSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := qmptest.Connect(t, func(m *qmptest.Monitor) { m.Next() })
		err := parse(t, `{"execute": "stop", "timeout": "5ms"}`).Run(within(t, time.Minute), client, qmp.RunOptions{Timeout: time.Hour})
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "5ms") {
			t.Errorf("got %v", err)
		}
	})
}
