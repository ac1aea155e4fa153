package machine

import (
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/sourcery-zone/sandbox/machine/api"
)

// TestHelperPlaysASupervisor is the program of the test below: it reports what it
// was asked to do.
func TestHelperPlaysASupervisor(t *testing.T) {
	if flag.NArg() == 0 {
		t.Skip("it is run by TestSupervisorIsToldWhatToDo")
	}
	request, err := api.ReadStart(os.NewFile(api.FDStart, "request"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	say := api.NewReporter(os.NewFile(api.FDReport, "report"))
	say(api.Report{Note: flag.Arg(0) + " " + string(text)})
	say(api.Report{Stage: StageAgent})
	// Its end ends the sandbox; the test's process is the writer, and lives longer.
	_, _ = os.NewFile(api.FDHold, "hold").Read(make([]byte, 1))
}

func TestSupervisorIsToldWhatToDo(t *testing.T) {
	s := create(t, testHost(t), "told")
	s.host.Supervisor = []string{os.Args[0], "-test.run=TestHelperPlaysASupervisor$", "--", "hello"}
	var notes []string
	hold, err := s.Start(t.Context(), StartOptions{
		Until: StageAgent, Hold: true, restore: "/a/snapshot, and more", withHome: true,
		Note: func(note string) { notes = append(notes, note) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Files().Lock(); err == nil {
		t.Error("the supervisor does not hold the lock")
	}
	hold.Close()
	if err := s.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	want, err := json.Marshal(api.StartRequest{Dirs: s.host.Dirs, Name: "told", Hold: true, Restore: "/a/snapshot, and more", WithHome: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(notes) != 1 || notes[0] != "hello "+string(want) {
		t.Errorf("the supervisor was told %q, want %q", notes, "hello "+string(want))
	}
}
