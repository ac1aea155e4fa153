package policy

import (
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Request is a request of HTTP in the form in which a server gets it.
type Request struct {
	Scheme string // http, or https if it comes over TLS
	Host   string // without a port
	Port   uint16
	Method string
	Path   string // with its percent signs
	Query  string // the same
}

// RuleBadPath closes a path that different servers read differently, unless a rule opens all paths.
const RuleBadPath = "ambiguous-path"

// requests are those that a target opens, where it does not open the host itself.
type requests struct {
	scheme  string
	methods []string // none: all
	path    []string // a pattern of segments
	query   string   // that there must be; anyQuery stands for each
}

const anyQuery = "*"

// all tells whether each path is meant, so that it does not matter how a server reads it.
func (q *requests) all() bool {
	return len(q.path) == 1 && q.path[0] == anySegments && q.query == anyQuery
}

func (q *requests) matches(r Request, parts []string) bool {
	if q.scheme != r.Scheme || len(q.methods) > 0 && !slices.Contains(q.methods, r.Method) {
		return false
	}
	return q.all() || parts != nil && (q.query == anyQuery || q.query == r.Query) && matchPath(q.path, parts)
}

// Request tells whether a guest may send a request to a host of which some are open: see [Verdict].Requests.
func (l *Allowlist) Request(r Request) Verdict {
	if _, problem := checkName(strings.TrimSuffix(r.Host, ".")); problem != "" {
		return Verdict{Rule: RuleBadName}
	}
	parts, _, problem := segments(r.Path)
	name := canonical(r.Host)
	if v, ok := denied(l.Deny, func(t target) bool { return t.matchesName(name) && t.matchesPort(r.Port, TCP) }); ok {
		return v
	}
	for _, rule := range l.Rules {
		for _, t := range rule.targets {
			if t.matchesName(name) && t.matchesPort(r.Port, TCP) && (t.requests == nil || t.requests.matches(r, parts)) {
				return Verdict{Allow: true, Rule: rule.text}
			}
		}
	}
	if problem != "" {
		return Verdict{Rule: RuleBadPath}
	}
	return Verdict{Rule: RuleNotAllowed}
}

// RuleForRequest returns the text of the rule that opens a request, and no other than of its repository if it is one of
// git's. It is for the user to add, and a guest's to choose: so there is none for a path that would be a pattern.
func RuleForRequest(r Request) string {
	if strings.Contains(r.Path, "*") || strings.Contains(strings.ToLower(r.Path), "%2a") {
		return ""
	}
	address := r.Scheme + "://" + r.Host
	if r.Scheme == schemeHTTPS && r.Port != 443 || r.Scheme == schemeHTTP && r.Port != 80 {
		address += ":" + strconv.Itoa(int(r.Port))
	}
	rules := []string{r.Method + " " + address + r.Path}
	for _, of := range []string{"/info/refs", "/git-upload-pack", "/git-receive-pack"} {
		if repository, ok := strings.CutSuffix(r.Path, of); ok {
			rules = []string{gitPrefix + address + repository, rules[0]}
		}
	}
	for _, rule := range rules {
		if _, err := ParseRule(rule); err == nil {
			return rule
		}
	}
	return ""
}

const (
	schemeHTTP  = "http"
	schemeHTTPS = "https"
	gitPrefix   = "git:"
)

// parseRequests reads [METHODS ]URL, where there is a URL in a rule.
func parseRequests(text string) (t target, err error) {
	const example = "https://api.example.com/v1/** or GET,HEAD http://example.com/**"
	at := 0
	q := &requests{query: anyQuery}
	address := text
	if methods, rest, ok := strings.Cut(text, " "); ok {
		for method := range strings.SplitSeq(methods, ",") {
			if method == "" || strings.Trim(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") != "" || method == "CONNECT" || method == "TRACE" {
				return t, ruleError(text, at, example, "%q is no method that can be opened: methods are written in capital letters, with commas and no spaces between them", method)
			}
			q.methods = append(q.methods, method)
			at += len(method) + 1
		}
		address = rest
	}
	scheme, rest, _ := strings.Cut(address, "://")
	if q.scheme = scheme; scheme != schemeHTTP && scheme != schemeHTTPS {
		return t, ruleError(text, at, example, "a rule for requests begins with https:// or http://")
	}
	at += len(scheme) + len("://")
	host, _, hasPath := strings.Cut(rest, "/")
	if strings.ContainsAny(rest, "?#") {
		return t, ruleError(text, at+strings.IndexAny(rest, "?#"), example, "what follows the path is not judged, so it cannot be in a rule")
	}
	if t, err = requestHost(text, at, scheme, host, example); err != nil {
		return t, err
	}
	if !hasPath {
		return t, ruleError(text, len(text), "https://api.example.com/**", "the path is missing")
	}
	path := rest[len(host):]
	parts, bad, problem := segments(path)
	if problem != "" {
		return t, ruleError(text, at+len(host)+bad, example, "%s", problem)
	}
	for _, part := range parts {
		if strings.Contains(part, anySegments) && part != anySegments {
			return t, ruleError(text, at+len(host)+strings.Index(path, anySegments), example, "** stands alone between slashes, for any number of directories; * is for any text within one")
		}
	}
	q.path, t.requests = parts, q
	return t, nil
}

// requestHost reads the host and the port of a URL.
func requestHost(text string, at int, scheme, host, example string) (t target, err error) {
	if strings.Contains(host, "@") {
		return t, ruleError(text, at, example, "it names a user, whom a rule does not know")
	}
	t, err = parseTarget(host)
	if errors.Is(err, ErrHost) {
		return t, hostError(text)
	}
	if err != nil {
		// Its place is within the host.
		_, why, _ := strings.Cut(err.Error(), ": ")
		why, _, _ = strings.Cut(why, "; write it like")
		return t, ruleError(text, at, example, "%s", why)
	}
	switch {
	case t.name == "":
		return t, ruleError(text, at, example, "requests are opened to a name: no certificate is made for an address")
	case t.port == anyPort:
		return t, ruleError(text, at, example, "it needs one port, or none for that of %s", scheme)
	case t.port == webPorts && scheme == schemeHTTP:
		t.port = 80
	case t.port == webPorts:
		t.port = 443
	}
	return t, nil
}

// parseGit reads git:https://HOST/PATH: what the repository there is fetched from and pushed to by, and nothing else of
// its host (gitprotocol-http(5)).
func parseGit(text string) (Rule, error) {
	const example = "git:https://github.com/OWNER/REPOSITORY"
	address := text[len(gitPrefix):]
	if address != "" && !strings.ContainsAny(address, ":/@") {
		return Rule{}, ruleError(text, len(gitPrefix), example, "a remote's name stands for where it leads when a sandbox is made that shares the repository: write the address")
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != schemeHTTPS || u.User != nil {
		return Rule{}, ruleError(text, len(gitPrefix), example, "it needs the repository's address by https, without a user; to open another way to it, open its host and port, such as github.com:22")
	}
	address = strings.TrimSuffix(strings.TrimSuffix(address, "/"), ".git")
	base, err := parseRequests(address)
	if errors.Is(err, ErrHost) {
		return Rule{}, hostError(text)
	}
	if err != nil {
		_, why, _ := strings.Cut(err.Error(), ": ")
		return Rule{}, ruleError(text, len(gitPrefix), example, "%s", strings.TrimSuffix(why, "; write it like "+example))
	}
	repository := base.requests.path
	if last := len(repository) - 1; base.name[0] == '.' || repository[last] == "" || strings.Contains(strings.Join(repository, "/"), string(anyText)) {
		return Rule{}, ruleError(text, len(gitPrefix), example, "it names one repository")
	}
	rule := Rule{text: text}
	add := func(suffix, query string, methods []string, path ...string) {
		t := base
		pattern := slices.Clone(repository)
		pattern[len(pattern)-1] += suffix
		t.requests = &requests{scheme: schemeHTTPS, methods: methods, path: append(pattern, path...), query: query}
		rule.targets = append(rule.targets, t)
	}
	for _, suffix := range []string{"", ".git"} { // servers take both
		for _, service := range []string{"git-upload-pack", "git-receive-pack"} {
			add(suffix, "service="+service, []string{"GET"}, "info", "refs")
			add(suffix, "", []string{"POST"}, service)
		}
		add(suffix, anyQuery, nil, "info", "lfs", anySegments) // git-lfs(1), whose files are often at another host
	}
	return rule, nil
}
