package rules

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// setting is one of a file of Git's settings.
type setting struct {
	section    string // in lower case
	subsection string
	key        string // in lower case
	value      string
	set        bool // it has a value; one that has none is true
	quoted     bool // it has a subsection, which can be empty
}

// name is that by which git-config(1) calls the setting, without what a terminal does not show.
func (s setting) name() string {
	name := s.section + "." + s.key
	if s.quoted {
		name = s.section + "." + s.subsection + "." + s.key
	}
	if len(name) > 60 {
		name = name[:60] + "…"
	}
	quoted := fmt.Sprintf("%q", name)
	return quoted[1 : len(quoted)-1]
}

// judgeSettings compares the settings that are to be with those that were, and returns why they must not come to be, or
// nothing. Harmless settings can be any. All others have to stay as they were: they are the host's user's own. Either
// function can be nil, for a file that does not exist.
func judgeSettings(to, from func() ([]byte, error)) string {
	kept, err := risky(from)
	if err != nil {
		return "the settings that are there cannot be compared: " + err.Error()
	}
	wanted, err := risky(to)
	if err != nil {
		return err.Error()
	}
	for _, s := range wanted {
		if !slices.Contains(kept, s) {
			return fmt.Sprintf("it sets %s, by which Git may execute commands on the host", s.name())
		}
	}
	if !slices.Equal(wanted, kept) {
		return "it changes settings of yours by which Git executes commands on the host"
	}
	return ""
}

// risky returns the settings that are not known to be harmless.
func risky(content func() ([]byte, error)) ([]setting, error) {
	if content == nil {
		return nil, nil
	}
	text, err := content()
	if err != nil {
		return nil, errors.New("it cannot be read")
	}
	all, err := parseSettings(text)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, setting.harmless), nil
}

// settingsReader reads what Git reads from a file of settings. It goes by git_parse_source in Git's config.c, of which it
// refuses what nothing writes: a byte order mark, carriage returns, NUL, and subsections without quotes.
type settingsReader struct {
	text []byte
	next int
}

var errSettings = errors.New("it is not written as Git writes settings")

func parseSettings(text []byte) ([]setting, error) {
	if len(text) > MaxContent {
		return nil, fmt.Errorf("it is larger than %d KiB", MaxContent>>10)
	}
	if bytes.HasPrefix(text, []byte("\xef\xbb\xbf")) || bytes.ContainsAny(text, "\r\x00") {
		return nil, errSettings
	}
	r := settingsReader{text: text}
	var all []setting
	var section setting
	for !r.ended() {
		switch c := r.char(); {
		case isSpace(c):
		case c == '#' || c == ';':
			for r.char() != '\n' {
			}
		case c == '[':
			var err error
			if section, err = r.section(); err != nil {
				return nil, err
			}
		case isLetter(c) && section.section != "":
			s := section
			if err := r.setting(&s, c); err != nil {
				return nil, err
			}
			all = append(all, s)
		default:
			return nil, errSettings
		}
	}
	return all, nil
}

func (r *settingsReader) ended() bool { return r.next >= len(r.text) }

// char returns the next one, and the end of a line at the end of the text.
func (r *settingsReader) char() byte {
	if r.ended() {
		r.next = len(r.text) + 1
		return '\n'
	}
	r.next++
	return r.text[r.next-1]
}

// section reads what follows an opening bracket.
func (r *settingsReader) section() (setting, error) {
	var name []byte
	c := r.char()
	for ; isKey(c); c = r.char() {
		name = append(name, lower(c))
	}
	s := setting{section: string(name)}
	switch {
	case len(name) == 0:
		return s, errSettings
	case c == ']':
		return s, nil
	case c != ' ' && c != '\t':
		return s, errSettings
	}
	for c == ' ' || c == '\t' {
		c = r.char()
	}
	if c != '"' {
		return s, errSettings
	}
	s.quoted = true
	var subsection []byte
	for c = r.char(); c != '"'; c = r.char() {
		if c == '\\' {
			c = r.char()
		}
		if c == '\n' {
			return s, errSettings
		}
		subsection = append(subsection, c)
	}
	s.subsection = string(subsection)
	if r.char() != ']' {
		return s, errSettings
	}
	return s, nil
}

// setting reads a key, of which first is the first character, and its value.
func (r *settingsReader) setting(s *setting, first byte) error {
	name := []byte{lower(first)}
	c := r.char()
	for ; isKey(c); c = r.char() {
		name = append(name, lower(c))
	}
	s.key = string(name)
	for c == ' ' || c == '\t' {
		c = r.char()
	}
	switch c {
	case '\n':
		return nil
	case '=':
		s.set = true
		var err error
		s.value, err = r.value()
		return err
	}
	return errSettings
}

// value reads to the end of the line, or of several of them.
func (r *settingsReader) value() (string, error) {
	var value []byte
	quoted, comment := false, false
	kept := -1 // without the blanks at the end
	for {
		c := r.char()
		switch {
		case c == '\n' && quoted:
			return "", errSettings
		case c == '\n' && kept >= 0:
			return string(value[:kept]), nil
		case c == '\n':
			return string(value), nil
		case comment:
			continue
		case isSpace(c) && !quoted:
			if kept < 0 {
				kept = len(value)
			}
			if len(value) > 0 {
				value = append(value, c)
			}
			continue
		case !quoted && (c == '#' || c == ';'):
			comment = true
			continue
		}
		kept = -1
		switch c {
		case '"':
			quoted = !quoted
		case '\\':
			switch c = r.char(); c {
			case '\n':
			case 't':
				value = append(value, '\t')
			case 'b':
				value = append(value, '\b')
			case 'n':
				value = append(value, '\n')
			case '\\', '"':
				value = append(value, c)
			default:
				return "", errSettings
			}
		default:
			value = append(value, c)
		}
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' }

func isLetter(c byte) bool { return 'a' <= lower(c) && lower(c) <= 'z' }

func isKey(c byte) bool { return isLetter(c) || '0' <= c && c <= '9' || c == '-' }

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// harmless tells whether the setting, with its value, is known to execute nothing and to lead nowhere else.
func (s setting) harmless() bool {
	name := s.section + "." + s.key
	if s.quoted {
		name = s.section + ".*." + s.key
	}
	allows := harmlessSettings[name]
	if s.section == "advice" && !s.quoted {
		allows = isBool
	}
	if allows == nil {
		return false
	}
	if !s.set {
		return allows("true")
	}
	for i := range len(s.value) {
		if c := s.value[i]; c < ' ' && c != '\t' && (c != '\n' || name != "branch.*.description") || c == 0x7f {
			return false
		}
	}
	return allows(s.value)
}

// harmlessSettings are those of which some values, or all, are harmless. What is not here, Git may execute, as core.pager,
// or read more settings from, as include.path, or send what it knows to, as http.proxy. core.worktree is not here because a
// guest can make what it names a link, through which Git on the host would write.
var harmlessSettings = map[string]func(value string) bool{
	"branch.*.description":          isText,
	"branch.*.gh-merge-base":        isName,
	"branch.*.merge":                isName,
	"branch.*.pushremote":           isURL,
	"branch.*.rebase":               isBoolOr("merges"),
	"branch.*.remote":               isURL,
	"branch.*.vscode-merge-base":    isName,
	"branch.autosetupmerge":         isBoolOr("always", "inherit", "simple"),
	"branch.autosetuprebase":        oneOf("never", "local", "remote", "always"),
	"branch.sort":                   isName,
	"color.ui":                      isBoolOr("always", "auto", "never"),
	"core.abbrev":                   isBoolOr("auto"),
	"core.autocrlf":                 isBoolOr("input"),
	"core.bare":                     isBool,
	"core.bigfilethreshold":         isNumber,
	"core.checkstat":                oneOf("default", "minimal"),
	"core.commitgraph":              isBool,
	"core.compression":              isNumber,
	"core.eol":                      oneOf("lf", "crlf", "native"),
	"core.filemode":                 isBool,
	"core.ignorecase":               isBool,
	"core.logallrefupdates":         isBoolOr("always"),
	"core.longpaths":                isBool,
	"core.multipackindex":           isBool,
	"core.precomposeunicode":        isBool,
	"core.preloadindex":             isBool,
	"core.protecthfs":               oneOf("true"),
	"core.protectntfs":              oneOf("true"),
	"core.quotepath":                isBool,
	"core.repositoryformatversion":  oneOf("0", "1"),
	"core.safecrlf":                 isBoolOr("warn"),
	"core.sparsecheckout":           isBool,
	"core.sparsecheckoutcone":       isBool,
	"core.splitindex":               isBool,
	"core.symlinks":                 isBool,
	"core.trustctime":               isBool,
	"core.untrackedcache":           isBoolOr("keep"),
	"diff.algorithm":                oneOf("default", "myers", "minimal", "patience", "histogram"),
	"diff.renamelimit":              isNumber,
	"diff.renames":                  isBoolOr("copies", "copy"),
	"extensions.compatobjectformat": oneOf("sha1", "sha256"),
	"extensions.noop":               isText,
	"extensions.objectformat":       oneOf("sha1", "sha256"),
	"extensions.preciousobjects":    isBool,
	"extensions.refstorage":         oneOf("files", "reftable"),
	"extensions.relativeworktrees":  isBool,
	"extensions.worktreeconfig":     isBool,
	"feature.manyfiles":             isBool,
	"fetch.prune":                   isBool,
	"fetch.prunetags":               isBool,
	"fetch.writecommitgraph":        isBool,
	"gc.auto":                       isNumber,
	"gc.autodetach":                 isBool,
	"gc.autopacklimit":              isNumber,
	"index.skiphash":                isBool,
	"index.sparse":                  isBool,
	"index.threads":                 isBoolOr(),
	"index.version":                 isNumber,
	"init.defaultbranch":            isName,
	"lfs.*.access":                  oneOf("none", "basic", "private", "negotiate"),
	"lfs.repositoryformatversion":   isNumber,
	"maintenance.auto":              isBool,
	"maintenance.strategy":          oneOf("none", "incremental"),
	"merge.conflictstyle":           oneOf("merge", "diff3", "zdiff3"),
	"merge.ff":                      isBoolOr("only"),
	"merge.renamelimit":             isNumber,
	"pack.threads":                  isNumber,
	"pack.windowmemory":             isNumber,
	"pull.ff":                       isBoolOr("only"),
	"pull.rebase":                   isBoolOr("merges"),
	"push.autosetupremote":          isBool,
	"push.default":                  oneOf("nothing", "current", "upstream", "tracking", "simple", "matching"),
	"push.followtags":               isBool,
	"rebase.autosquash":             isBool,
	"rebase.autostash":              isBool,
	"rebase.updaterefs":             isBool,
	"remote.*.fetch":                isRefspec,
	"remote.*.gh-resolved":          isName,
	"remote.*.prune":                isBool,
	"remote.*.prunetags":            isBool,
	"remote.*.pushurl":              isURL,
	"remote.*.tagopt":               oneOf("--tags", "--no-tags"),
	"remote.*.url":                  isURL,
	"remote.pushdefault":            isURL,
	"rerere.autoupdate":             isBool,
	"rerere.enabled":                isBool,
	"status.showuntrackedfiles":     isBoolOr("normal", "all"),
	"status.submodulesummary":       isBoolOr(),
	"submodule.*.active":            isBool,
	"submodule.*.branch":            isName,
	"submodule.*.update":            oneOf("checkout", "rebase", "merge", "none"),
	"submodule.*.url":               isURL,
	"submodule.active":              isName,
	"user.email":                    isText,
	"user.name":                     isText,
	"user.useconfigonly":            isBool,
}

func isText(string) bool { return true }

func oneOf(values ...string) func(string) bool {
	return func(value string) bool { return slices.Contains(values, strings.ToLower(value)) }
}

var isBool = oneOf("true", "false", "yes", "no", "on", "off", "1", "0", "")

// isBoolOr is for settings that are numbers or one of the words, or switch something.
func isBoolOr(words ...string) func(string) bool {
	word := oneOf(words...)
	return func(value string) bool { return isBool(value) || isNumber(value) || word(value) }
}

// isNumber is for those of git-config(1), with a unit.
func isNumber(value string) bool {
	digits := strings.TrimRight(strings.TrimPrefix(value, "-"), "kKmMgG")
	return digits != "" && len(value)-len(digits) <= 2 && strings.Trim(digits, "0123456789") == ""
}

// isName is for branches, patterns of them, and words: nothing that is taken for an option or an address.
func isName(value string) bool {
	return !strings.HasPrefix(value, "-") && !strings.Contains(value, ":")
}

// isRefspec is for git-fetch(1): no option.
func isRefspec(value string) bool { return !strings.HasPrefix(value, "-") }

// isURL is for addresses that Git itself can reach, and for names of remotes, in place of which it takes an address. Others it
// gives to a program that the address names: git-remote-ext, of ext::COMMAND, executes it.
func isURL(value string) bool {
	scheme, rest, hasScheme := strings.Cut(value, "://")
	switch {
	case value == "", strings.HasPrefix(value, "-"), strings.Contains(value, "::"):
		return false
	case !hasScheme:
		host, path, isSSH := strings.Cut(value, ":")
		if isSSH && !strings.Contains(host, "/") {
			return !hasOption(host) && !strings.HasPrefix(path, "-")
		}
		return true // a path
	case strings.EqualFold(scheme, "file"):
		return true
	case !oneOf("https", "http", "ssh", "git", "git+ssh", "ssh+git")(scheme):
		return false
	}
	host, path, _ := strings.Cut(rest, "/")
	return !hasOption(host) && !strings.HasPrefix(path, "-")
}

// hasOption tells whether a host, after the user that may be before it, could be taken for an option of ssh.
func hasOption(host string) bool {
	_, name, hasUser := strings.Cut(host, "@")
	if !hasUser {
		name = host
	}
	return strings.HasPrefix(host, "-") || strings.HasPrefix(name, "-") || strings.Contains(host, "%")
}
