package main

import (
	"slices"
	"strings"
	"testing"
)

func TestOptionsMayFollowArgumentsButNotAGuestsCommand(t *testing.T) {
	app := newApp()
	for line, want := range map[string]string{
		"":                                      "",
		"ls":                                    "ls",
		"--version":                             "--version",
		"fork work --name x":                    "fork --name x -- work",
		"fork work --name=x -n 2 --rm":          "fork --name=x -n 2 --rm -- work",
		"rm one -f two":                         "rm -f -- one two",
		"rm one -- -f two":                      "rm -- one -f two",
		"snapshot ls work --json":               "snapshot ls --json -- work",
		"logs work -f --of qemu":                "logs -f --of qemu -- work",
		"stop work --time":                      "stop --time",            // which is then missed by name
		"stop work --tiem 2s":                   "stop --tiem -- work 2s", // which is then refused
		"restart --time -1s one":                "restart --time -1s -- one",
		"cp - work: -u root":                    "cp -u root -- - work:",
		"qmp work query-status --timeout 5s":    "qmp --timeout 5s -- work query-status",
		"exec work ls -l":                       "exec -- work ls -l",
		"exec work --user root ls -u":           "exec --user root -- work ls -u",
		"exec -u root work -T -- -odd --user x": "exec -u root -T -- work -odd --user x",
		"exec -Tu root work id":                 "exec -Tu root -- work id",
		"exec -- work -- ls":                    "exec -- work ls",
		"exec work -- -- ls":                    "exec -- work -- ls",
		"exec h ls":                             "exec -- h ls",
		"run --share . -- npm test --share":     "run --share . -- npm test --share",
		"run -d --name x":                       "run -d --name x",
		"run npm test --name x":                 "run -- npm test --name x",
		"ssh work -L 80:localhost:80 -- ls":     "ssh -- work -L 80:localhost:80 -- ls",
		"help image fly":                        "image fly",
		"ls --generate-bash-completion":         "ls --generate-bash-completion",
	} {
		got := arrange(app, append([]string{"sandbox"}, strings.Fields(line)...))
		if want := append([]string{"sandbox"}, strings.Fields(want)...); got.help != nil || !slices.Equal(got.words, want) {
			t.Errorf("%q became %q (help: %v)", line, got.words, got.help != nil)
		}
	}
	for line, want := range map[string]string{
		"--help": "sandbox", "help": "sandbox", "stop work -h": "sandbox stop", "exec --help": "sandbox exec",
		"exec work --help": "sandbox exec", "help image build": "sandbox image build", "image --help": "sandbox image",
		"help run now": "sandbox run",
	} {
		got := arrange(app, append([]string{"sandbox"}, strings.Fields(line)...))
		if got.help == nil || got.help.HelpName != want {
			t.Errorf("%q does not ask for the help of %s: %+v", line, want, got)
		}
	}
	for _, line := range []string{"ssh work --help", "exec work ls --help", "run -- ls --help", "exec work -- --help"} {
		if got := arrange(app, append([]string{"sandbox"}, strings.Fields(line)...)); got.help != nil {
			t.Errorf("%q asks for the help of %s", line, got.help.HelpName)
		}
	}
}
