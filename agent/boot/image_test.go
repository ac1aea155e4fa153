package boot

import (
	"strings"
	"testing"
)

func TestParseImage(t *testing.T) {
	const good = `{"store":{"format":"erofs","device":"/dev/vda"},"init":"/sbin/init",
		"user":{"name":"agent","uid":1000,"gid":1000,"home":"/home/agent","shell":"/usr/bin/zsh"},
		"readiness":{"system":"systemd"},"listenSSH":22}`
	config, err := ParseImage([]byte(good))
	if err != nil || config.User.Home != "/home/agent" || config.ListenSSH != 22 || config.Readiness.System != "systemd" {
		t.Errorf("%+v, %v", config, err)
	}
	for change, want := range map[string]string{
		`"/sbin/init"→"init"`:        "init is \"init\" and must be an absolute path",
		`"/home/agent"→""`:           "user.home",
		`"/dev/vda"→"vda"`:           "store.device",
		`"erofs"→""`:                 "store.format",
		`"listenSSH"→"listenTelnet"`: "listenTelnet",
		`"systemd"→"openrc"`:         "openrc",
		`22}→22`:                     "cannot be read",
	} {
		old, fresh, _ := strings.Cut(change, "→")
		_, err := ParseImage([]byte(strings.Replace(good, old, fresh, 1)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want an error with %q", change, err, want)
		}
	}
}
