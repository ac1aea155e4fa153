package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
)

func TestQMPCommandsAreWrittenAsInQMPShell(t *testing.T) {
	for line, want := range map[string]string{
		`query-status`: `query-status null`,
		`send-key keys=[{"type": "qcode", "data": "ret"}] hold-time=20`: `send-key {"hold-time":20,"keys":[{"data":"ret","type":"qcode"}]}`,
		`job-cancel id=12a`:                                 `job-cancel {"id":"12a"}`,
		`job-cancel id="12"`:                                `job-cancel {"id":"12"}`,
		`job-cancel id="a \" b"`:                            `job-cancel {"id":"a \" b"}`,
		`job-cancel id=a=b`:                                 `job-cancel {"id":"a=b"}`,
		`job-cancel  id=$5`:                                 `job-cancel {"id":"$$5"}`, // no variable
		`set_link name=n up=true x.y.z=1 x.w`:               `error`,
		`set_link name=n up=true x.y.z=1`:                   `set_link {"name":"n","up":true,"x":{"y":{"z":1}}}`,
		`job-cancel {"id": "x"}`:                            `job-cancel {"id":"x"}`,
		`{"execute": "job-cancel", "arguments": {"id": 5}}`: `job-cancel {"id":5}`,
		`{"execute": }`:                                     `error`,
		`stop a=1 a=2`:                                      `error`,
		`stop {"a": 1}}`:                                    `error`,
	} {
		got := "error"
		if script, err := parseQMPLine(line); err == nil {
			text, err := json.Marshal(script.Steps[0].Arguments)
			if err != nil {
				t.Fatal(err)
			}
			got = fmt.Sprintf("%s %s", script.Steps[0].Execute, text)
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", line, got, want)
		}
	}
}

func TestSharedBeginningIsWhatTabAdds(t *testing.T) {
	if got := sharedBeginning([]string{"query-block", "query-blockstats", "query-balloon"}); got != "query-b" {
		t.Errorf("got %q", got)
	}
}

func TestOnlyPlainWordsAreOffered(t *testing.T) {
	hostile := []string{"query-block", "query-\x1b]0;owned\a", "query-\u202ekcolb", "query-a\nb", "stop"}
	if got := startingWith(hostile, "query-"); !slices.Equal(got, []string{"query-block"}) {
		t.Errorf("got %q", got)
	}
}
