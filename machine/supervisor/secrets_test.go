package supervisor

import (
	"os"
	"testing"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/network/secret"
)

func TestARevokedSecretIsKnownAndHasNoValue(t *testing.T) {
	value, err := secret.NewValue("the-value")
	if err != nil {
		t.Fatal(err)
	}
	f, err := value.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	access := machine.Access{Secrets: []string{"ONE@a.example", "TWO@b.example", "NEW@c.example"}, Placeholders: map[string]string{"ONE": "1", "TWO": "2"}, Revoked: []string{"ONE", "NEW"}}
	v := &supervisor{config: machine.Config{Access: access}, values: values{files: map[string]*os.File{"ONE": f, "TWO": f}}}
	got, err := v.networkSecrets()
	if err != nil || len(got) != 2 || got[0].Placeholder != "1" || got[0].Value != nil || got[1].Value != f {
		t.Errorf("the network is told of %+v: %v", got, err)
	}
	fd := f.Fd()
	if err := forget(f); err != nil {
		t.Fatal(err)
	}
	if v, err := secret.ReadFile(f); err == nil || f.Fd() != fd {
		t.Errorf("its file has %d bytes", len(v.Reveal()))
	}
}
