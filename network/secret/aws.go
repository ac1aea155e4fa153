package secret

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/sourcery-zone/sandbox/network/aws"
)

const awsPrefix = string(FromAWS) + ":"

var awsDomains = func() (domains []Host) {
	for _, name := range aws.Domains() {
		domains = append(domains, Host{"*." + name, defaultPort})
	}
	return domains
}()

// AWS tells whether the secret is a key of AWS, which signs requests and goes into none.
func (s Spec) AWS() bool { return s.Source.Kind == FromAWS }

// parseAWS reads PROFILE[@HOST[:PORT][/PATH][,HOST…]].
func parseAWS(text string) (Spec, error) {
	const subject, example = "a profile of AWS", "aws:work or aws:work@s3.eu-central-1.amazonaws.com"
	if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		return Spec{}, specError(subject, example, "is one line of UTF-8, without characters that control something")
	}
	s := Spec{Name: aws.VariableKeyID, Source: Source{Kind: FromAWS, Of: text}}
	at := strings.LastIndexByte(text, '@')
	if at >= 0 {
		s.Source.Of = text[:at]
	}
	if s.Source.Of == "" || strings.TrimSpace(s.Source.Of) != s.Source.Of {
		return Spec{}, specError(subject, example, "has a name of your ~/.aws/config, without spaces before or after it")
	}
	if at < 0 {
		s.Hosts = slices.Clone(awsDomains)
		return s, nil
	}
	for item := range strings.SplitSeq(text[at+1:], ",") {
		if i := slices.IndexFunc(awsDomains, func(h Host) bool { return h.Name == item }); i >= 0 && !slices.Contains(s.Hosts, awsDomains[i]) {
			s.Hosts = append(s.Hosts, awsDomains[i])
		} else if err := s.addHost(item); err != nil {
			return Spec{}, specError(subject, example, "cannot sign for that: %w", err)
		}
	}
	return s, nil
}

func (s Spec) textOfAWS() string {
	text := awsPrefix + s.Source.Of
	if slices.Equal(s.Hosts, awsDomains) {
		return text
	}
	return text + "@" + strings.Join(s.Places(), ",")
}

// Variables are those of the guest that are the secret's.
func (s Spec) Variables() []string {
	if s.AWS() {
		return aws.Variables()
	}
	return []string{s.Name}
}

// Placeholders are what a guest is to have in place of the value, by its variables.
func (s Spec) Placeholders(v Value) map[string]string {
	if s.AWS() {
		id, key := aws.Placeholder()
		return map[string]string{aws.VariableKeyID: id, aws.VariableKey: key}
	}
	return map[string]string{s.Name: Placeholder(v)}
}

// Covers tells whether the secret is for a host.
func (s Spec) Covers(h Host) bool {
	return slices.ContainsFunc(s.Hosts, func(of Host) bool { return of.covers(h) })
}

// NewAWS returns the value of a profile's.
func NewAWS(c aws.Credentials) (Value, error) {
	v, err := NewValue(c.String())
	if err != nil {
		return Value{}, errors.New("the key of AWS is longer than those are, or has other characters")
	}
	return v, nil
}

// AWS returns what NewAWS has made a value of.
func (v Value) AWS() (aws.Credentials, error) { return aws.Parse(v.Reveal()) }

// signature is what a request is to be signed with in place of what has signed it.
type signature struct {
	entry entry
	of    aws.Authorization
}

// signed finds out who has signed a request, which is refused if that cannot be done anew. What is left of the header
// are those of its fields in which there is no placeholder to be.
func (f *filling) signed(r *http.Request) *signature {
	values := r.Header["Authorization"]
	for _, e := range f.here {
		if !e.Spec.AWS() {
			continue
		}
		if len(values) == 1 {
			if of, ok := aws.ParseAuthorization(values[0]); ok && of.KeyID == e.Placeholder {
				if e.value.IsZero() {
					f.refuse(RuleNoValue, e)
				}
				return &signature{e, of}
			}
		}
		if strings.Contains(r.URL.RawQuery, e.Placeholder) || slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, e.Placeholder) }) {
			f.refuse(aws.RuleForm, e)
		}
	}
	return nil
}

// sign signs a request that is otherwise as it is to leave. It returns the rule by which it is not to go.
func (t *Table) sign(r *http.Request, s *signature) (rule string) {
	c, err := s.entry.value.AWS()
	if err != nil {
		return RuleNoValue
	}
	return t.signer.Sign(r, s.of, c)
}

// masksOfAWS are for what AWS repeats of a key, such as a session's that has expired. They are as long as that: programs want to
// know the length of what they get.
func masksOfAWS(e entry) (all []replacement) {
	for _, value := range []Value{e.value, e.previous} {
		c, err := value.AWS()
		if err != nil {
			continue
		}
		for _, old := range []string{c.AccessKeyID, c.SecretAccessKey, c.SessionToken} {
			if len(old) < minMasked {
				continue
			}
			r := newReplacement(old, strings.Repeat(e.Placeholder, len(old)/len(e.Placeholder)+1)[:len(old)])
			r.early = max(r.early, min(maxEarly, len(old)/minMasked))
			all = append(all, r)
		}
	}
	return all
}

// hostOf returns the view of a host, which may be that of a domain.
func (v *view) hostOf(h Host) (*hostView, bool) {
	if of, ok := v.hosts[h]; ok {
		return of, true
	}
	for domain := range maps.Keys(v.hosts) {
		if domain.covers(h) {
			return v.hosts[domain], true
		}
	}
	return nil, false
}
