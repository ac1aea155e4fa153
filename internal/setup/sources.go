package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Source is one entry of apt's sources for binary packages, in either of apt's two formats (sources.list(5)).
type Source struct {
	URIs          []string
	Suites        []string
	Components    []string
	Architectures []string // empty: all that dpkg is configured for
	SignedBy      string   // as written: a file, fingerprints or an embedded key; empty: apt's default keys
}

// parseOneLine reads the classic format, one entry a line. Lines that apt itself would refuse are skipped: judging the
// system's sources is apt's business.
func parseOneLine(text string) []Source {
	var sources []Source
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if kind != "deb" {
			continue
		}
		var source Source
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") {
			options, after, ok := strings.Cut(rest[1:], "]")
			if !ok {
				continue
			}
			rest = after
			for _, option := range strings.Fields(options) {
				if key, value, _ := strings.Cut(option, "="); strings.EqualFold(key, "signed-by") {
					source.SignedBy = strings.ReplaceAll(value, ",", " ")
				}
			}
		}
		fields := strings.Fields(rest)
		if len(fields) < 3 {
			continue
		}
		source.URIs, source.Suites, source.Components = fields[:1], fields[1:2], fields[2:]
		sources = append(sources, source)
	}
	return sources
}

// parseDeb822 reads the format of .sources files: stanzas of fields, as in a mail's header.
func parseDeb822(text string) []Source {
	var sources []Source
	fields := map[string]string{}
	last := ""
	flush := func() {
		enabled := strings.ToLower(strings.TrimSpace(fields["enabled"]))
		if slices.Contains(strings.Fields(fields["types"]), "deb") && !slices.Contains([]string{"no", "false", "0", "off"}, enabled) {
			sources = append(sources, Source{
				URIs:       strings.Fields(fields["uris"]),
				Suites:     strings.Fields(fields["suites"]),
				Components: strings.Fields(fields["components"]),
				SignedBy:   strings.TrimSpace(fields["signed-by"]),
			})
		}
		fields, last = map[string]string{}, ""
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \t\r\n")
		switch {
		case strings.HasPrefix(line, "#"):
		case line == "":
			flush()
		case line[0] == ' ' || line[0] == '\t':
			if last != "" {
				fields[last] += "\n" + line
			}
		default:
			key, value, _ := strings.Cut(line, ":")
			last = strings.ToLower(strings.TrimSpace(key))
			fields[last] = strings.TrimSpace(value)
		}
	}
	flush()
	return sources
}

// Deb822 renders s as one stanza of a .sources file.
func (s Source) Deb822() string {
	var b strings.Builder
	field := func(key string, values []string) {
		if len(values) > 0 {
			fmt.Fprintf(&b, "%s: %s\n", key, strings.Join(values, " "))
		}
	}
	field("Types", []string{"deb"})
	field("URIs", s.URIs)
	field("Suites", s.Suites)
	field("Components", s.Components)
	field("Architectures", s.Architectures)
	if strings.Contains(s.SignedBy, "\n") {
		// An embedded key starts on the line after the field's name; its other lines kept their indentation.
		fmt.Fprintf(&b, "Signed-By:\n %s\n", s.SignedBy)
	} else {
		field("Signed-By", strings.Fields(s.SignedBy))
	}
	return b.String()
}

// readSources reads all of apt's sources below etc ("/etc/apt"). A file that cannot be read is an error: what is in it
// may be the very mirror that we look for.
func readSources(etc string) ([]Source, error) {
	files := []string{filepath.Join(etc, "sources.list")}
	for _, pattern := range []string{"*.list", "*.sources"} {
		matches, err := filepath.Glob(filepath.Join(etc, "sources.list.d", pattern))
		if err != nil {
			return nil, fmt.Errorf("list apt's sources below %s: %w", etc, err)
		}
		files = append(files, matches...)
	}
	var sources []Source
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read apt's sources to find the mirror that this system uses: %w", err)
		}
		if strings.HasSuffix(file, ".sources") {
			sources = append(sources, parseDeb822(string(text))...)
		} else {
			sources = append(sources, parseOneLine(string(text))...)
		}
	}
	return sources, nil
}

// mirror picks the entry that serves the main component of the running release itself. Vendors' repositories may use the
// same names of suite and component, so signs that an entry is the distribution's own decide between several.
func mirror(sources []Source, release Release) (Source, error) {
	best, bestScore := Source{}, -1
	for _, source := range sources {
		if !slices.Contains(source.Suites, release.Codename) || !slices.Contains(source.Components, "main") {
			continue
		}
		if score := likeness(source, sources, release); score > bestScore {
			best, bestScore = source, score
		}
	}
	if bestScore < 0 {
		return Source{}, fmt.Errorf("no entry of apt's sources (/etc/apt/sources.list and sources.list.d) serves the suite %s with the component main: add your mirror of %s there and run this again", release.Codename, release.Name)
	}
	return best, nil
}

// likeness counts the signs that source is the distribution's own archive.
func likeness(source Source, all []Source, release Release) int {
	score := 0
	if strings.Contains(source.SignedBy, release.ID+"-archive-keyring") {
		score += 4
	}
	for _, other := range all {
		if slices.Equal(other.URIs, source.URIs) && slices.Contains(other.Suites, release.Codename+"-updates") {
			score += 2
			break
		}
	}
	for _, uri := range source.URIs {
		if strings.HasSuffix(strings.TrimSuffix(uri, "/"), "/"+release.ID) {
			score++
			break
		}
	}
	return score
}

// withSuite returns the sources from which packages of the extra suite can be installed: the release itself, its updates
// and security fixes as the system has them, and the extra suite from the release's own mirror.
func withSuite(sources []Source, release Release, extra string) ([]Source, error) {
	main, err := mirror(sources, release)
	if err != nil {
		return nil, err
	}
	own := []string{release.Codename + "-updates", release.Codename + "-security", release.Codename + "/updates", release.Codename + "-proposed-updates"}
	private := []Source{main}
	if !slices.Contains(main.Suites, extra) {
		added := main
		added.Suites, added.Components = []string{extra}, []string{"main"}
		private = append(private, added)
	}
	for _, source := range sources {
		isMain := slices.Equal(source.URIs, main.URIs) && slices.Equal(source.Suites, main.Suites)
		fixes := slices.ContainsFunc(source.Suites, func(suite string) bool { return slices.Contains(own, suite) })
		if fixes && !isMain {
			private = append(private, source)
		}
	}
	return private, nil
}

// sibling returns the source for another suite of the release's own mirror, for one architecture, always checked against
// a key: the entry's own or else the distribution's.
func sibling(sources []Source, release Release, suite string, components []string, arch string) (Source, error) {
	main, err := mirror(sources, release)
	if err != nil {
		return Source{}, err
	}
	main.Suites, main.Components, main.Architectures = []string{suite}, components, []string{arch}
	if main.SignedBy == "" {
		main.SignedBy = "/usr/share/keyrings/" + release.ID + "-archive-keyring.gpg"
	}
	return main, nil
}

func renderSources(sources []Source) string {
	stanzas := make([]string, len(sources))
	for i, source := range sources {
		stanzas[i] = source.Deb822()
	}
	return strings.Join(stanzas, "\n")
}
