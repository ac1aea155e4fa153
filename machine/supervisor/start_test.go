package supervisor

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/network/secret"
)

// TestHelperInheritsSecrets is the program of the test below, which runs itself again once.
func TestHelperInheritsSecrets(t *testing.T) {
	if flag.NArg() == 0 {
		t.Skip("it is run by TestSecretsAreInheritedByTheNextRunAndByNobodyElse")
	}
	request, err := api.ReadStart(os.NewFile(api.FDStart, "request"))
	if err != nil {
		t.Fatal(err)
	}
	secrets := inheritSecrets(request.Secrets)
	out := os.NewFile(api.FDReport, "report")
	for _, name := range request.Secrets {
		value, err := secret.ReadFile(secrets[name])
		fmt.Fprintf(out, "%s %v %s %v\n", name, request.Again, value.Reveal(), err)
	}
	child := exec.Command("ls", "-l", "/proc/self/fd")
	listed, err := child.CombinedOutput()
	fmt.Fprintf(out, "a child has secrets: %v %v\n", bytes.Contains(listed, []byte("memfd:secret")), err)
	if !request.Again {
		s := &supervisor{values: values{files: secrets}}
		fmt.Fprintln(out, s.again(againAsBefore, request))
	}
}

func TestSecretsAreInheritedByTheNextRunAndByNobodyElse(t *testing.T) {
	request := api.StartRequest{Name: "a"}
	var files []*os.File
	for i := range 2 {
		value, err := secret.NewValue(fmt.Sprint("value-", i))
		if err != nil {
			t.Fatal(err)
		}
		file, err := value.File()
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		files, request.Secrets = append(files, file), append(request.Secrets, fmt.Sprint("NAME", i))
	}
	asked, err := request.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer asked.Close()
	lock, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	out, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(os.Args[0], "-test.run=TestHelperInheritsSecrets$", "--", "helper")
	cmd.ExtraFiles = append([]*os.File{lock, out, asked, nil}, files...)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	got, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for _, again := range []bool{false, true} {
		fmt.Fprintf(&want, "NAME0 %v value-0 <nil>\nNAME1 %[1]v value-1 <nil>\na child has secrets: false <nil>\n", again)
	}
	if string(got) != want.String() {
		t.Errorf("got\n%s\nwant\n%s", got, &want)
	}
}
