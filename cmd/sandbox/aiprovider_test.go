package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sourcery-zone/sandbox/network/authority"
	"github.com/sourcery-zone/sandbox/network/login"
	"github.com/sourcery-zone/sandbox/network/secret"
)

// aiProvider is the providers of AI models, as far as their programs need them for one answer, behind a proxy on this
// machine. It gives keys and logins, and writes down what it is asked with which of them.
type aiProvider struct {
	authority *authority.Authority
	keys      map[string]string // by the variables that programs look for

	mu     sync.Mutex
	tokens map[string][]aiTokens // of each login: those that it had, and at last those that it has
	seen   []string
}

type aiTokens struct{ access, refresh string }

// aiAnswer is what each model says.
const aiAnswer = "the model has answered"

func newAIProvider() (*aiProvider, error) {
	vouching, err := authority.New()
	return &aiProvider{
		authority: vouching, tokens: map[string][]aiTokens{},
		keys: map[string]string{
			"ANTHROPIC_API_KEY": "sk-ant-api03-" + rand.Text() + rand.Text(),
			"OPENAI_API_KEY":    "sk-proj-" + rand.Text() + rand.Text(),
			"GEMINI_API_KEY":    "AIza" + rand.Text() + rand.Text()[:9],
		},
	}, err
}

// serve serves until the listener is closed. It is all hosts.
func (p *aiProvider) serve(l net.Listener) {
	config := &tls.Config{NextProtos: []string{"h2", "http/1.1"}, GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return p.authority.Leaf(hello.ServerName)
	}}
	server := http.Server{Handler: p, ErrorLog: log.New(io.Discard, "", 0)} // which tells of clients that have gone
	_ = server.Serve(tls.NewListener(connected{l}, config))
}

// connected accepts what its proxy was asked to connect to a host.
type connected struct{ net.Listener }

func (l connected) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		// Only when it was answered, a client goes on: nothing else is read with it.
		if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil && r.Method == http.MethodConnect {
			if _, err = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); err == nil {
				return c, nil
			}
		}
		c.Close()
	}
}

// grant gives a login other tokens than it had.
func (p *aiProvider) grant(name string) aiTokens {
	t := aiTokens{rand.Text() + rand.Text(), rand.Text() + rand.Text()}
	switch name {
	case "claude":
		t.access, t.refresh = "sk-ant-oat01-"+t.access, "sk-ant-ort01-"+t.refresh
	case "codex":
		part := base64.RawURLEncoding.EncodeToString
		claims := fmt.Sprintf(`{"exp":%d,"https://api.openai.com/auth":{"chatgpt_account_id":"account","chatgpt_plan_type":"pro"}}`,
			time.Now().Add(240*time.Hour).Unix())
		t.access = part([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + part([]byte(claims)) + "." + t.access
	}
	p.tokens[name] = append(p.tokens[name], t)
	return t
}

// logIn gives the user a login with an access token that has expired.
func (p *aiProvider) logIn(ctx context.Context, store login.Store, name string) error {
	known, err := login.Find(name)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.grant(name)
	l := login.Login{Expires: time.Now(), Since: time.Now(), Renewed: time.Now(), Scopes: known.Scopes, Plan: "pro", Account: "account"}
	var errAccess, errRefresh error
	l.Access, errAccess = secret.NewValue(t.access)
	l.Refresh, errRefresh = secret.NewValue(t.refresh)
	if err := errors.Join(errAccess, errRefresh); err != nil {
		return err
	}
	return store.Put(ctx, name, l)
}

// secrets are all keys and tokens that were given.
func (p *aiProvider) secrets() (all [][]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, key := range p.keys {
		all = append(all, []byte(key))
	}
	for _, tokens := range p.tokens {
		for _, t := range tokens {
			all = append(all, []byte(t.access), []byte(t.refresh))
		}
	}
	return all
}

// log is what was asked, a line for each request: with what, how, where.
func (p *aiProvider) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.seen, "\n") + "\n"
}

// credential is what a request is known by.
func credential(r *http.Request) string {
	for _, found := range []string{r.Header.Get("X-Api-Key"), r.Header.Get("X-Goog-Api-Key"), r.URL.Query().Get("key")} {
		if found != "" {
			return found
		}
	}
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
}

// whose is the name of a key, or that of a login with the number of its token.
func (p *aiProvider) whose(credential string) string {
	if credential == "" {
		return "nobody"
	}
	for name, key := range p.keys {
		if credential == key {
			return name
		}
	}
	for name, tokens := range p.tokens {
		if i := slices.IndexFunc(tokens, func(t aiTokens) bool { return t.access == credential }); i >= 0 {
			return fmt.Sprintf("%s-%d", name, i)
		}
	}
	return "stranger"
}

func (p *aiProvider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	p.mu.Lock()
	known := credential(r)
	who := p.whose(known)
	p.seen = append(p.seen, fmt.Sprintf("%s %s %s%s", who, r.Method, r.Host, r.URL.Path))
	p.mu.Unlock()
	w.Header().Set("X-Repeated", known) // the guest is not to see it
	w.Header().Set("X-Whose", who)
	for _, name := range login.Names() {
		if at, err := login.Find(name); err == nil && at.Token == "https://"+r.Host+r.URL.Path {
			p.refresh(w, name, r.Header.Get("Content-Type"), body)
			return
		}
	}
	if who == "stranger" {
		http.Error(w, `{"error":{"message":"who is that?"}}`, http.StatusUnauthorized)
		return
	}
	p.answer(w, r, body)
}

// refresh gives a login other tokens, for a refresh token that was not used before.
func (p *aiProvider) refresh(w http.ResponseWriter, name, contentType string, body []byte) {
	asked := struct {
		Refresh string `json:"refresh_token"`
	}{}
	if strings.HasPrefix(contentType, "application/json") {
		_ = json.Unmarshal(body, &asked)
	} else if form, err := url.ParseQuery(string(body)); err == nil {
		asked.Refresh = form.Get("refresh_token")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	had := p.tokens[name]
	if len(had) == 0 || had[len(had)-1].refresh != asked.Refresh {
		p.seen = append(p.seen, "refused to refresh "+name)
		http.Error(w, `{"error":"invalid_grant"}`, http.StatusBadRequest)
		return
	}
	p.seen = append(p.seen, "refreshed "+name)
	t := p.grant(name)
	writeJSON(w, map[string]any{"access_token": t.access, "refresh_token": t.refresh, "token_type": "Bearer", "expires_in": 8 * 3600})
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// answer answers what programs ask for a model's sake, and all else with nothing.
func (p *aiProvider) answer(w http.ResponseWriter, r *http.Request, body []byte) {
	type object = map[string]any
	begin, end := aiAnswer[:9], aiAnswer[9:]
	switch path := r.URL.Path; {
	case r.Header.Get("Upgrade") != "":
		w.WriteHeader(http.StatusUpgradeRequired) // but to something else: no WebSockets
	case path == "/v1/messages":
		message := object{"id": "msg_1", "type": "message", "role": "assistant", "model": "any", "content": []object{}, "usage": object{"input_tokens": 1, "output_tokens": 1}}
		if !strings.Contains(string(body), `"stream":true`) {
			message["content"], message["stop_reason"] = []object{{"type": "text", "text": aiAnswer}}, "end_turn"
			writeJSON(w, message)
			return
		}
		delta := func(text string) object {
			return object{"type": "content_block_delta", "index": 0, "delta": object{"type": "text_delta", "text": text}}
		}
		stream(w,
			object{"type": "message_start", "message": message},
			object{"type": "content_block_start", "index": 0, "content_block": object{"type": "text", "text": ""}},
			delta(begin), delta(end),
			object{"type": "content_block_stop", "index": 0},
			object{"type": "message_delta", "delta": object{"stop_reason": "end_turn"}, "usage": object{"output_tokens": 2}},
			object{"type": "message_stop"},
		)
	case strings.HasSuffix(path, "/responses"):
		item := object{"type": "message", "id": "item_1", "role": "assistant", "status": "completed", "content": []object{{"type": "output_text", "text": aiAnswer, "annotations": []object{}}}}
		usage := object{"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
		stream(w,
			object{"type": "response.created", "response": object{"id": "resp_1"}},
			object{"type": "response.output_item.done", "output_index": 0, "item": item},
			object{"type": "response.completed", "response": object{"id": "resp_1", "usage": usage, "output": []object{item}}},
		)
	case strings.HasSuffix(path, "/accounts/check"):
		account := object{"id": "account", "structure": "personal", "plan_type": "pro", "workspace_backend_origin": "NO_CONSTRAINT", "account_routing_override": "NO_CONSTRAINT"}
		writeJSON(w, object{"accounts": []object{account}, "default_account_id": "account", "account_ordering": []string{"account"}})
	case strings.HasSuffix(path, "/models"):
		writeJSON(w, object{"models": []object{}, "data": []object{}})
	case strings.HasSuffix(path, "enerateContent"): // also streamGenerateContent
		said := func(text string) object {
			return object{
				"candidates":    []object{{"index": 0, "finishReason": "STOP", "content": object{"role": "model", "parts": []object{{"text": text}}}}},
				"usageMetadata": object{"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2},
			}
		}
		within := func(o object) object { return o }
		if strings.HasPrefix(path, "/v1internal") {
			within = func(o object) object { return object{"response": o} }
		}
		if strings.HasSuffix(path, ":generateContent") {
			// It is asked which of the models is to answer.
			writeJSON(w, within(said(`{"complexity_reasoning":"it is simple","complexity_score":1}`)))
			return
		}
		stream(w, within(said(begin)), within(said(end)))
	case strings.HasSuffix(path, ":loadCodeAssist"):
		tier := object{"id": "standard-tier", "name": "Standard", "isDefault": true}
		writeJSON(w, object{"currentTier": tier, "allowedTiers": []object{tier}, "cloudaicompanionProject": "project"})
	case path == "/tokeninfo":
		writeJSON(w, object{"expires_in": 3600, "scope": "https://www.googleapis.com/auth/cloud-platform"})
	case r.Host == "models.opencode.ai":
		writeJSON(w, object{"anthropic": object{
			"id": "anthropic", "name": "Anthropic", "env": []string{"ANTHROPIC_API_KEY"}, "npm": "@ai-sdk/anthropic",
			"models": object{"claude-sonnet-4-5": object{
				"id": "claude-sonnet-4-5", "name": "Sonnet", "release_date": "2025-09-29", "attachment": false, "reasoning": false, "temperature": true,
				"tool_call": true, "limit": object{"context": 200000, "output": 64000}, "cost": object{"input": 1, "output": 1}, "options": object{},
			}},
		}})
	default:
		writeJSON(w, object{})
	}
}

// stream sends events one by one, each in a piece of its own.
func stream(w http.ResponseWriter, events ...map[string]any) {
	w.Header().Set("Content-Type", "text/event-stream")
	for _, e := range events {
		text, err := json.Marshal(e)
		if err != nil {
			panic(err) // they are all maps of texts
		}
		if kind, ok := e["type"].(string); ok {
			fmt.Fprintf(w, "event: %s\n", kind)
		}
		fmt.Fprintf(w, "data: %s\n\n", text)
		_ = http.NewResponseController(w).Flush()
	}
}
