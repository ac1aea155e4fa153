package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/qemu"
)

// words are the remedies as the commands and options of this program. One that begins
// with its own punctuation goes without ": " before it.
var words = map[remedy.Action]string{
	remedy.Start:        "start it with sandbox start %[1]s",
	remedy.StartWithout: "\nThe sandbox can be started without it: sandbox start %[1]s",
	remedy.Stop:         "stop it first (sandbox stop %[1]s)",
	remedy.End:          "sandbox stop %[1]s ends it in order",
	remedy.StopOther:    "stop it (sandbox stop %[1]s works) and start it again, or use the program that started it",
	remedy.Restart:      "restart it (sandbox restart %[1]s)",
	remedy.Remove:       "; sandbox rm %[1]s removes it with the home",
	remedy.RemoveNow:    "remove it at once (sandbox rm --force %[1]s)",
	remedy.ResetNow:     "reset it at once (sandbox reset --force %[1]s)",
	remedy.NewDisk:      "\nRemedy: sandbox reset %[1]s gives it an empty disk, and sandbox snapshot restore %[1]s TAG the disk of a snapshot; the home and the shares stay as they are",
	remedy.ResizeMemory: "\nRemedy: sandbox resize --memory %[2]s %[1]s, when it is stopped",
	remedy.StopToResize: "stop it (sandbox stop %[1]s), resize it (sandbox resize --%[2]s %[3]s %[1]s) and start it again",
	remedy.UseExisting:  "use it (sandbox exec %[1]s, sandbox start %[1]s), remove it (sandbox rm %[1]s), or choose another --name",
	remedy.OtherName:    "choose another name, or remove it (sandbox rm %[1]s)",
	remedy.ShorterName:  "choose a shorter --name, or set XDG_RUNTIME_DIR to a shorter directory",
	remedy.List:         "sandbox ls shows those that exist",
	remedy.Inspect:      "sandbox inspect %[1]s lists those that it has",
	remedy.ListPorts:    "sandbox port %[1]s lists them",
	remedy.Examine:      "\nsandbox doctor shows what this machine has",
	remedy.AllowWeak:    "\nTo run the sandbox all the same, add --allow-weak-isolation: then whoever breaks out of the guest has all that you have",

	remedy.AcceptShare:     "\nPut back what was there; or, if you want the guest to have what is there now: sandbox share accept %[1]s %[2]s",
	remedy.AcceptDangerous: "\nIf you want the guest to have it all the same: sandbox share accept --allow-dangerous-share %[1]s %[2]s",

	remedy.ShareWithoutRules: "\nTo share it all the same, give the share the option rules=none (--share DIRECTORY:rules=none): then the guest can read every file in it and, unless it is read-only, write what you execute, such as the hooks of Git",

	remedy.ListMounts: "sandbox mounts %[1]s lists them",
	remedy.Unmount:    "unmount one (sandbox umount %[1]s GUEST)",
	remedy.UnmountNow: "\nEnd what uses it, or take it away all the same: sandbox umount --force %[1]s %[2]s",
	remedy.DropShare:  "\nPut it back, or go on without it: sandbox umount %[1]s %[2]s",

	remedy.ListSnapshots:  "sandbox snapshot ls %[1]s shows those that it has",
	remedy.RemoveSnapshot: "\nRemedy: sandbox snapshot rm %[1]s %[2]s removes it",
	remedy.OtherTag:       "choose another tag, or remove it (sandbox snapshot rm %[1]s %[2]s)",
	remedy.SaveWithHome:   "restore it without --with-home, and save with it next time (sandbox snapshot save --with-home %[1]s)",

	remedy.BuildImage:     "make one with sandbox image build",
	remedy.BuildForeign:   "make one with sandbox image build --arch %[1]s",
	remedy.RebuildImage:   " (sandbox image build)",
	remedy.BuildPublished: ", or build the published image with sandbox image build %[1]s",
	remedy.BuildRecipe:    "; without Nix, sandbox image build --recipe debian builds an image from Debian packages",
	remedy.NameFlake:      "look at it, and name it (sandbox image build %[1]s) if you want that",
	remedy.ChooseImage:    "choose one with --image, or for good with sandbox image default NAME",
	remedy.OtherImage:     "choose an image for that with --image, or another --arch",
	remedy.ReplaceImage:   "; remove it with sandbox image rm %[1]s and build it again",
	remedy.RemoveItsUsers: "sandbox ls shows which; remove that with sandbox rm NAME first",
	remedy.FindAgent:      "build it with make, or say where it is with --agent",

	remedy.Set:           "give --%[1]s %[2]s",
	remedy.MakeWith:      "give --%[1]s %[2]s to sandbox run",
	remedy.SetYourself:   "; give --%[1]s yourself if you want this",
	remedy.SetByFlag:     "only --%[1]s can name one",
	remedy.LeaveOut:      "leave out --%[1]s",
	remedy.LessMemory:    "give a smaller --memory",
	remedy.LargerDisk:    "give --disk a larger size, or make a new sandbox and copy what you need",
	remedy.NoPorts:       "leave out --publish, which does not go with --net none, or use --net public",
	remedy.RemoveOrRerun: "leave out --rm (which a command without --name implies), or --restart always",
	remedy.SetVariable:   "set it in a step above, or with --var %[1]s=VALUE (a plain dollar is $$)",
	remedy.AllowUnsafe:   "it takes --unsafe",
	remedy.StoreSecret:   ", or store it with sandbox secret set %[1]s",
	remedy.LogIn:         "log in with sandbox login %[1]s",
}

// sentences are an error with what to do about it. Of several errors, each has its own.
func sentences(err error) string {
	if inner := errors.Unwrap(err); inner != nil && inner.Error() == err.Error() {
		if _, ok := err.(*remedy.Error); !ok { // it adds a kind and no words
			return sentences(inner)
		}
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err.Error() + inWords(remedy.Of(err))
	}
	var plain, all []string
	for _, err := range joined.Unwrap() {
		plain, all = append(plain, err.Error()), append(all, sentences(err))
	}
	if err.Error() != strings.Join(plain, "\n") { // a sentence of its own about several
		return err.Error() + inWords(remedy.Of(err))
	}
	return strings.Join(all, "\n")
}

// inWords continues a sentence with the remedies. A new line, which is one of its own,
// follows those that belong to the line before.
func inWords(remedies []remedy.Remedy) string {
	var line, lines string
	said := map[string]bool{}
	for _, r := range remedies {
		var args []any
		for _, arg := range r.Args {
			args = append(args, arg)
		}
		switch r.Do {
		case remedy.AcceptShare, remedy.AcceptDangerous, remedy.UnmountNow, remedy.DropShare:
			if len(args) == 2 {
				args[1] = qemu.ShellQuote(r.Args[1:])
			}
		}
		text := fmt.Sprintf(words[r.Do], args...)
		switch {
		case text == "", strings.Contains(text, "%!"): // of a supervisor that is newer
		case said[text]:
		case strings.HasPrefix(text, "\n"):
			lines += text
		case line != "":
			line += ", or " + strings.TrimLeft(text, ";, ")
		case strings.ContainsRune(";, ", rune(text[0])):
			line = text
		default:
			line = ": " + text
		}
		said[text] = true
	}
	return line + lines
}
