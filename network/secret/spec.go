package secret

import (
	"errors"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Spec says which secret a variable of the guest's stands for, and where the secret may go.
type Spec struct {
	Name   string // of the variable in the guest
	Source Source // of the secret, on the host
	Hosts  []Host // that get it, over TLS, each once
	// Paths narrow it to these and what is below them, of hosts that are there. They are as [policy.PathSegments] reads them,
	// percent-encoded where a letter, a digit, or one of -._~ would not be.
	Paths   map[Host][]string
	Headers []string // in canonical form, in which it is put; none: those in which clients send keys
	Query   bool     // it is put in the query of a URL as well
	Body    bool     // and in bodies that are JSON or forms
}

// Host is one that gets a secret: exactly that name, in small letters and without a dot at its end, at that port of TCP. Of AWS,
// it may be all below a domain, as *.amazonaws.com.
type Host struct {
	Name string
	Port uint16 // 443 where none is written
}

// IsDomain tells whether all below a domain are meant.
func (h Host) IsDomain() bool { return strings.HasPrefix(h.Name, "*.") }

// covers tells whether the other host is meant.
func (h Host) covers(other Host) bool {
	return h == other || h.IsDomain() && h.Port == other.Port && strings.HasSuffix(other.Name, h.Name[1:]) && !other.IsDomain()
}

// String returns the host as a spec has it.
func (h Host) String() string {
	if h.Port == defaultPort {
		return h.Name
	}
	return h.Name + ":" + strconv.Itoa(int(h.Port))
}

// Source is where a secret is on the host. The zero value is the variable of the spec's name, or what the user has stored
// under that name where there is no such variable.
type Source struct {
	Kind SourceKind
	Of   string // the variable, the file's path, which is absolute or begins with ~/, the command, the name in the store, or the provider
	// TTL is for how long a command's or a file's secret is good, after which it has to be got again. Zero: to the end.
	TTL time.Duration
}

// SourceKind is the kind of a source.
type SourceKind string

// The kinds.
const (
	FromEnvironment SourceKind = "env"
	FromFile        SourceKind = "file"
	FromCommand     SourceKind = "command" // what a shell's command prints
	FromStore       SourceKind = "store"   // see [Store]
	FromAWS         SourceKind = "aws"     // a profile of AWS's, whose key signs requests: see package aws
	FromLogin       SourceKind = "login"   // the access token of the user's login at that provider, which others replace in time
)

const (
	defaultPort = 443

	wordQuery    = "query"
	wordBody     = "body"
	headerPrefix = "header="
	ttlPrefix    = "ttl="
	homePrefix   = "~/"
)

// Parse reads NAME[=SOURCE]@HOST[:PORT][/PATH][,HOST…][,header=NAME…][,query][,body][,ttl=TIME], where SOURCE is env:VARIABLE, file:PATH,
// command:COMMAND, store:NAME or login:PROVIDER. What is before the last @ is the source's. Or aws:PROFILE[@HOST…], by which
// requests to AWS are signed, or to these hosts.
//
// Its errors repeat nothing of what stands before that @: somebody may have written the secret itself there.
func Parse(text string) (Spec, error) {
	const example = "GITHUB_TOKEN@api.github.com or API_KEY=command:pass show api@api.example.com:8443,header=X-Api-Key"
	if profile, ok := strings.CutPrefix(text, awsPrefix); ok {
		return parseAWS(profile)
	}
	at := strings.LastIndexByte(text, '@')
	if at < 0 {
		return Spec{}, specError("a secret", example, "has no @, after which the hosts are that it is for")
	}
	if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		return Spec{}, specError("a secret", example, "is one line of UTF-8, without characters that control something")
	}
	name, source, hasSource := strings.Cut(text[:at], "=")
	if err := CheckName(name); err != nil {
		return Spec{}, specError("a secret", example, "begins with the name of a variable in the guest: %w", err)
	}
	subject := "the secret " + name
	if reserved(name) {
		return Spec{}, specError(subject, example, "has the name of a variable that guests need as it is")
	}
	s := Spec{Name: name}
	var err error
	if hasSource {
		if s.Source, err = parseSource(source); err != nil {
			return Spec{}, specError(subject, example, "has a source that is wrong: %w", err)
		}
	}
	for item := range strings.SplitSeq(text[at+1:], ",") {
		if err := s.add(item); err != nil {
			return Spec{}, specError(subject, example, "cannot go there: %w", err)
		}
	}
	if len(s.Hosts) == 0 {
		return Spec{}, specError(subject, example, "has no host that it is for")
	}
	if s.Source.TTL != 0 && s.Source.Kind != FromCommand && s.Source.Kind != FromFile {
		return Spec{}, specError(subject, example, "has a ttl, after which only what a command prints or a file holds can be got again")
	}
	return s, nil
}

// specError says what is wrong, and how it could be written.
func specError(subject, example, format string, args ...any) error {
	return fmt.Errorf("%s %w; write it like %s", subject, fmt.Errorf(format, args...), example)
}

// String returns the text that Parse reads.
func (s Spec) String() string {
	if s.AWS() {
		return s.textOfAWS()
	}
	text := s.Name
	if s.Source != (Source{}) {
		text += "=" + string(s.Source.Kind) + ":" + s.Source.Of
	}
	items := s.Places()
	for _, name := range s.Headers {
		items = append(items, headerPrefix+name)
	}
	if s.Query {
		items = append(items, wordQuery)
	}
	if s.Body {
		items = append(items, wordBody)
	}
	if s.Source.TTL != 0 {
		items = append(items, ttlPrefix+s.Source.TTL.String())
	}
	return text + "@" + strings.Join(items, ",")
}

// Places are the hosts, with the paths to which it is narrowed, as a spec has them.
func (s Spec) Places() (places []string) {
	for _, h := range s.Hosts {
		if len(s.Paths[h]) == 0 {
			places = append(places, h.String())
		}
		for _, p := range s.Paths[h] {
			places = append(places, h.String()+p)
		}
	}
	return places
}

// CheckName tells whether name can be that of a variable, and so of a secret. Its error does not repeat the name.
func CheckName(name string) error {
	const longest = 128 // bytes: with more, it is something else that somebody took for a name
	letter := func(c byte) bool { return c == '_' || 'a' <= c|0x20 && c|0x20 <= 'z' }
	valid := name != "" && len(name) <= longest && letter(name[0])
	for i := range len(name) {
		valid = valid && (letter(name[i]) || isDigit(name[i]))
	}
	if !valid {
		return errors.New("it has 1 to 128 letters, digits and underscores of ASCII, and no digit first, such as GITHUB_TOKEN")
	}
	return nil
}

// Names of variables without which a guest's programs do not find each other, load what they should not, or do not
// believe the sandbox's authority. A placeholder there would be a riddle.
var (
	reservedNames = []string{
		"PATH", "HOME", "USER", "LOGNAME", "SHELL", "PWD", "OLDPWD", "TERM", "COLORTERM", "LANG", "LANGUAGE", "TZ", "TMPDIR",
		"ENV", "BASH_ENV", "BASHOPTS", "SHELLOPTS", "CDPATH", "IFS", "PROMPT_COMMAND", "DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK",
		"GCONV_PATH", "GLIBC_TUNABLES", "NODE_OPTIONS", "PYTHONPATH", "PYTHONHOME", "PERL5LIB", "PERL5OPT", "RUBYLIB", "RUBYOPT", "JAVA_TOOL_OPTIONS",
		"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
		// Those that the agent sets.
		"NODE_EXTRA_CA_CERTS", "DENO_TLS_CA_STORE", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE",
		"GIT_SSL_CAINFO", "AWS_CA_BUNDLE", "NIX_SSL_CERT_FILE", "CARGO_HTTP_CAINFO", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
	}
	reservedPrefixes = []string{"LD_", "LC_", "XDG_", "GIT_CONFIG_"}
)

func reserved(name string) bool {
	return slices.Contains(reservedNames, name) || slices.ContainsFunc(reservedPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// parseSource has errors that do not repeat the text.
func parseSource(text string) (Source, error) {
	kind, of, _ := strings.Cut(text, ":")
	s := Source{Kind: SourceKind(kind), Of: of}
	switch s.Kind {
	case FromEnvironment, FromStore, FromLogin:
		if err := CheckName(of); err != nil {
			return Source{}, fmt.Errorf("after %s: there is a name: %w", kind, err)
		}
	case FromFile:
		if in, ok := strings.CutPrefix(of, homePrefix); (!ok || in == "") && !path.IsAbs(of) {
			return Source{}, errors.New("after file: there is an absolute path, or one that begins with ~/, such as file:~/.config/token")
		}
	case FromCommand:
		if strings.TrimSpace(of) == "" {
			return Source{}, errors.New("after command: there is a command that prints the secret, such as command:pass show api")
		}
	default:
		return Source{}, errors.New("it is env:VARIABLE, file:PATH, command:COMMAND, store:NAME or login:PROVIDER, and never the secret itself")
	}
	return s, nil
}

// add reads what stands between two commas.
func (s *Spec) add(item string) error {
	name, isHeader := strings.CutPrefix(item, headerPrefix)
	ttl, isTTL := strings.CutPrefix(item, ttlPrefix)
	switch {
	case isHeader:
		return s.addHeader(name)
	case isTTL:
		return s.addTTL(ttl)
	case item == wordQuery:
		return once(&s.Query, item)
	case item == wordBody:
		return once(&s.Body, item)
	}
	return s.addHost(item)
}

// The bounds of a TTL: with less, a command would hardly do anything else, and more is none.
const (
	shortestTTL = time.Minute
	longestTTL  = 365 * 24 * time.Hour
)

func (s *Spec) addTTL(text string) error {
	ttl, err := time.ParseDuration(text)
	switch {
	case err != nil || ttl < shortestTTL || ttl > longestTTL:
		return fmt.Errorf("the ttl %q is no time from %v to a year, such as 15m or 8h", text, shortestTTL)
	case s.Source.TTL != 0:
		return errors.New("the ttl is there twice")
	}
	s.Source.TTL = ttl
	return nil
}

func (s *Spec) addHost(item string) error {
	host, below, err := parseHost(item)
	if err != nil {
		return err
	}
	known, narrowed := slices.Contains(s.Hosts, host), len(s.Paths[host]) > 0
	switch {
	case known && (below == "") == narrowed:
		return fmt.Errorf("%s is there as a whole, and with a path", host)
	case known && (below == "" || slices.Contains(s.Paths[host], below)):
		return fmt.Errorf("%s%s is there twice", host, below)
	case !known:
		s.Hosts = append(s.Hosts, host)
	}
	if below != "" {
		if s.Paths == nil {
			s.Paths = map[Host][]string{}
		}
		s.Paths[host] = append(s.Paths[host], below)
	}
	return nil
}

func once(set *bool, word string) error {
	if *set {
		return fmt.Errorf("%s is there twice", word)
	}
	*set = true
	return nil
}

// parseHost reads HOST[:PORT][/PATH].
func parseHost(text string) (h Host, below string, err error) {
	address, below, hasPath := strings.Cut(text, "/")
	name, port, hasPort := strings.Cut(address, ":")
	h = Host{Port: defaultPort}
	switch {
	case text == "":
		return h, "", errors.New("there is nothing before, between or after the commas")
	case strings.Contains(text, "="):
		return h, "", fmt.Errorf("%q is neither a host nor header=NAME", text)
	case strings.ContainsAny(text, "?# ") || strings.Contains(text, "://"):
		return h, "", fmt.Errorf("%q is no host: write its name alone or with a path, without https:// and a query", text)
	case strings.Contains(text, "*"):
		return h, "", fmt.Errorf("%q stands for several, and a secret is for hosts and paths that are named one by one", text)
	case strings.HasPrefix(text, "["):
		return h, "", fmt.Errorf("%q is an address, and a host has to prove by its name that it is the one", text)
	}
	if hasPort {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || port[0] == '0' {
			return h, "", fmt.Errorf("%q is no port: it is a number from 1 to 65535", port)
		}
		h.Port = uint16(n)
	}
	if h.Name, err = canonicalHost(name); err == nil && hasPath {
		below, err = canonicalPath("/" + below)
	}
	return h, below, err
}

// canonicalHost returns the one form of all that name the same host, if it is one that a certificate can name (RFC 1123).
func canonicalHost(text string) (string, error) {
	const longest, longestLabel = 253, 63 // RFC 1035, without the dot at the end
	name := strings.TrimSuffix(text, ".")
	labels := strings.Split(name, ".")
	switch last := labels[len(labels)-1]; {
	case last != "" && strings.Trim(last, "0123456789") == "" && len(labels) == 4:
		return "", fmt.Errorf("%q is an address, and a host has to prove by its name that it is the one", text)
	case len(labels) < 2:
		return "", fmt.Errorf("%q is neither %s nor %s nor a host, whose name has a dot in it", text, wordQuery, wordBody)
	case len(name) > longest:
		return "", fmt.Errorf("%q is no host: a name has at most %d characters", text, longest)
	case last == "" || isDigit(last[0]):
		return "", fmt.Errorf("%q is no host: what is after the last dot begins with a letter", text)
	}
	for _, label := range labels {
		if label == "" || len(label) > longestLabel || strings.Trim(label, "-") != label {
			return "", fmt.Errorf("%q is no host: between two dots, there are 1 to %d characters, and no hyphen first or last", text, longestLabel)
		}
		for i := range len(label) {
			if c := label[i] | 0x20; !isDigit(label[i]) && label[i] != '-' && (c < 'a' || c > 'z') {
				return "", fmt.Errorf("%q is no host: a name has letters of ASCII, digits and hyphens; for others, use its form that begins with xn--", text)
			}
		}
	}
	return strings.ToLower(name), nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// Headers that say where a request goes, how it is read, or how the connection goes on (RFC 9110, 7.6.1), and those that
// clients fill in by themselves.
var unfitHeaders = []string{
	"Host", "Cookie", "Content-Length", "Content-Type", "Content-Encoding", "Content-Range", "Accept-Encoding", "Expect", "Range",
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding",
	"Upgrade", "Http2-Settings", "Origin", "Referer", "Date", "Via", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
}

func (s *Spec) addHeader(text string) error {
	// The characters of a token (RFC 9110, 5.6.2).
	const marks = "!#$%&'*+-.^_`|~"
	if text == "" || strings.ContainsFunc(text, func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune(marks, r)
	}) {
		return fmt.Errorf("%q is not the name of a header, as in header=X-Api-Key", text)
	}
	name := http.CanonicalHeaderKey(text)
	switch {
	case slices.Contains(unfitHeaders, name) || strings.HasPrefix(name, "Sec-"):
		return fmt.Errorf("the header %s is not one for secrets, as header=Authorization is", name)
	case slices.Contains(s.Headers, name):
		return fmt.Errorf("the header %s is there twice", name)
	}
	s.Headers = append(s.Headers, name)
	return nil
}
