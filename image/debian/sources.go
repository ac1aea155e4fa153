package debian

import (
	"bufio"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// aptSource is one archive that the host's apt uses.
type aptSource struct {
	uri        string
	suites     []string
	components []string
	keyring    string
}

// hostSources are the lines of apt's one-line format for suite that follow the
// host's own choice of a Debian mirror. It is empty on a host without one:
// mmdebstrap has a default.
func hostSources(aptDir, suite string) []string {
	var archive, security string
	for _, s := range readSources(aptDir) {
		if !s.isDebian() {
			continue
		}
		switch path.Base(strings.TrimRight(s.uri, "/")) {
		case "debian":
			archive = firstOf(archive, s.uri)
		case "debian-security":
			security = firstOf(security, s.uri)
		}
	}
	if archive == "" {
		return nil
	}
	lines := mirrorSources(archive, suite)
	if security != "" && hasUpdates(suite) {
		lines = append(lines, "deb "+security+" "+suite+"-security main")
	}
	return lines
}

// mirrorSources are the lines for a mirror of Debian's archive.
func mirrorSources(uri, suite string) []string {
	lines := []string{"deb " + uri + " " + suite + " main"}
	if hasUpdates(suite) {
		lines = append(lines, "deb "+uri+" "+suite+"-updates main")
	}
	return lines
}

// hasUpdates tells released suites from those that change all the time.
func hasUpdates(suite string) bool {
	return !slices.Contains([]string{"sid", "unstable", "testing", "experimental"}, suite)
}

// isDebian tells Debian's own archive from others that publish for Debian.
func (s aptSource) isDebian() bool {
	keyring := s.keyring == "" || strings.Contains(s.keyring, "debian-archive")
	return keyring && slices.Contains(s.components, "main") && strings.Contains(s.uri, "://")
}

// withoutPassword removes credentials, which must not get into an image.
func withoutPassword(line string) string {
	fields := strings.Fields(line)
	for i, f := range fields {
		if u, err := url.Parse(f); err == nil && u.User != nil {
			u.User = nil
			fields[i] = u.String()
		}
	}
	return strings.Join(fields, " ")
}

// localArchives are the directories of those archives that this machine has as
// files.
func localArchives(lines []string) []string {
	var dirs []string
	for _, field := range strings.Fields(strings.Join(lines, " ")) {
		u, err := url.Parse(field)
		if err == nil && (u.Scheme == "file" || u.Scheme == "copy") && path.IsAbs(u.Path) && !slices.Contains(dirs, path.Clean(u.Path)) {
			dirs = append(dirs, path.Clean(u.Path))
		}
	}
	return dirs
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// readSources reads both of apt's formats. What it cannot read is no source.
func readSources(aptDir string) []aptSource {
	files, _ := filepath.Glob(filepath.Join(aptDir, "sources.list.d", "*"))
	files = append([]string{filepath.Join(aptDir, "sources.list")}, files...)
	var sources []aptSource
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		switch filepath.Ext(file) {
		case ".list":
			sources = append(sources, oneLine(string(data))...)
		case ".sources":
			sources = append(sources, deb822(string(data))...)
		}
	}
	return sources
}

// oneLine reads "deb [option=value …] URI suite component…".
func oneLine(text string) []aptSource {
	var sources []aptSource
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb ")
		if !ok {
			continue
		}
		var s aptSource
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") {
			var options string
			options, rest, ok = strings.Cut(rest[1:], "]")
			if !ok {
				continue
			}
			for _, o := range strings.Fields(options) {
				if value, ok := strings.CutPrefix(o, "signed-by="); ok {
					s.keyring = value
				}
			}
		}
		fields := strings.Fields(rest)
		if len(fields) < 3 {
			continue
		}
		s.uri, s.suites, s.components = fields[0], fields[1:2], fields[2:]
		sources = append(sources, s)
	}
	return sources
}

// deb822 reads stanzas of "Field: value".
func deb822(text string) []aptSource {
	var sources []aptSource
	for stanza := range strings.SplitSeq(text, "\n\n") {
		fields := map[string]string{}
		for sc := bufio.NewScanner(strings.NewReader(stanza)); sc.Scan(); {
			if key, value, ok := strings.Cut(sc.Text(), ":"); ok && !strings.HasPrefix(key, "#") {
				fields[strings.ToLower(strings.TrimSpace(key))] = strings.TrimSpace(value)
			}
		}
		if !slices.Contains(strings.Fields(fields["types"]), "deb") || strings.EqualFold(fields["enabled"], "no") {
			continue
		}
		for _, uri := range strings.Fields(fields["uris"]) {
			sources = append(sources, aptSource{
				uri: uri, suites: strings.Fields(fields["suites"]),
				components: strings.Fields(fields["components"]), keyring: fields["signed-by"],
			})
		}
	}
	return sources
}
