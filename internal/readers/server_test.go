package readers

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/textproto"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unicode/utf16"
)

// server is a yaml-language-server that is spoken to as an editor does: the Language
// Server Protocol over its standard input and output. One serves all tests, one call at a time.
type server struct {
	t       *testing.T
	in      io.WriteCloser
	calls   int
	open    int
	answers chan message            // to calls
	mu      sync.Mutex              // of what is sent, and found
	found   map[string]chan []issue // diagnostics, by document
}

type message struct {
	ID     json.RawMessage `json:"id,omitempty"`
	Method string          `json:"method,omitempty"`
	Params json.RawMessage `json:"params,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

type position struct {
	Line      int `json:"line"`
	Character int `json:"character"`
}

type issue struct {
	Range    struct{ Start, End position }
	Message  string
	Severity int
}

// String gives an issue with its place as people count.
func (i issue) String() string {
	return fmt.Sprintf("%d:%d %s", i.Range.Start.Line+1, i.Range.Start.Character+1, i.Message)
}

// serve starts a server that uses the project's schema for every document, and ends it with the test.
func serve(t *testing.T) *server {
	t.Helper()
	schemaFile, err := filepath.Abs("../../schema/runbook.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(need(t, "node"), needModule(t, "yaml-language-server/bin/yaml-language-server"), "--stdio")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, in: in, answers: make(chan message), found: map[string]chan []issue{}}
	settings := map[string]any{
		"validate": true, "hover": true, "completion": true, "schemaStore": map[string]any{"enable": false},
		"schemas": map[string]any{"file://" + schemaFile: "/*"},
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		s.read(bufio.NewReader(out), settings)
	}()
	t.Cleanup(func() {
		s.call("shutdown", nil, nil)
		s.notify("exit", nil)
		in.Close()
		<-read
		_ = cmd.Wait() // it was told to leave; how is its own affair
	})
	capabilities := map[string]any{
		"workspace": map[string]any{"configuration": true},
		"textDocument": map[string]any{
			"hover":      map[string]any{"contentFormat": []string{"markdown"}},
			"completion": map[string]any{"completionItem": map[string]any{"documentationFormat": []string{"markdown"}, "snippetSupport": true}},
		},
	}
	s.call("initialize", map[string]any{"processId": nil, "rootUri": nil, "capabilities": capabilities}, nil)
	s.notify("initialized", map[string]any{})
	s.notify("workspace/didChangeConfiguration", map[string]any{"settings": map[string]any{"yaml": settings}})
	s.issues(s.show("version: 1\n")) // by then it has its settings, and the schema
	return s
}

// read takes what the server says until it closes its output. It asks for settings, and is answered.
func (s *server) read(out *bufio.Reader, settings any) {
	defer close(s.answers)
	for {
		header, err := textproto.NewReader(out).ReadMIMEHeader()
		if err != nil {
			return
		}
		length, err := strconv.Atoi(header.Get("Content-Length"))
		if err != nil {
			return
		}
		body := make([]byte, length)
		if _, err := io.ReadFull(out, body); err != nil {
			return
		}
		var m message
		if err := json.Unmarshal(body, &m); err != nil {
			return
		}
		switch {
		case m.Method == "textDocument/publishDiagnostics":
			var p struct {
				URI         string
				Diagnostics []issue
			}
			if json.Unmarshal(m.Params, &p) == nil {
				if there := s.diagnostics(p.URI); there != nil {
					there <- p.Diagnostics
				}
			}
		case m.Method == "workspace/configuration":
			var p struct{ Items []struct{ Section string } }
			_ = json.Unmarshal(m.Params, &p) // no items: no settings
			values := make([]any, len(p.Items))
			for i, item := range p.Items {
				if item.Section == "yaml" {
					values[i] = settings
				}
			}
			s.send(map[string]any{"id": m.ID, "result": values})
		case m.Method != "" && len(m.ID) > 0:
			s.send(map[string]any{"id": m.ID, "result": nil})
		case m.Method == "":
			s.answers <- m
		}
	}
}

func (s *server) diagnostics(uri string) chan []issue {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.found[uri]
}

func (s *server) send(m map[string]any) {
	m["jsonrpc"] = "2.0"
	body, err := json.Marshal(m)
	if err != nil {
		panic(err) // maps of texts and numbers always encode
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.in, "Content-Length: %d\r\n\r\n%s", len(body), body) // a server that is gone says nothing more, which read sees
}

func (s *server) notify(method string, params any) {
	s.send(map[string]any{"method": method, "params": params})
}

func (s *server) call(method string, params, result any) {
	s.t.Helper()
	s.calls++
	s.send(map[string]any{"id": s.calls, "method": method, "params": params})
	m, ok := <-s.answers
	switch {
	case !ok:
		s.t.Fatalf("%s: the server has left", method)
	case m.Error != nil:
		s.t.Fatalf("%s: %s", method, m.Error.Message)
	case result != nil:
		if err := json.Unmarshal(m.Result, result); err != nil {
			s.t.Fatalf("%s: %v: %s", method, err, m.Result)
		}
	}
}

// show opens a text as a new document.
func (s *server) show(text string) (uri string) {
	s.open++
	uri = fmt.Sprintf("file:///runbooks/%d.yaml", s.open)
	s.showAs(uri, text)
	return uri
}

func (s *server) showAs(uri, text string) {
	s.mu.Lock()
	s.found[uri] = make(chan []issue, 8)
	s.mu.Unlock()
	s.notify("textDocument/didOpen", map[string]any{"textDocument": map[string]any{"uri": uri, "languageId": "yaml", "version": 1, "text": text}})
}

// issues waits for what the server finds wrong with a document. It takes its time before it
// looks, so many documents are shown before the first is asked for.
func (s *server) issues(uri string) []issue { return <-s.diagnostics(uri) }

// cursor is where an editor's cursor stands in a text of a test.
const cursor = "▮"

// at opens a text without its cursor, and gives the parameters of a request for that place.
func (s *server) at(text string) map[string]any {
	s.t.Helper()
	before, after, ok := strings.Cut(text, cursor)
	if !ok {
		s.t.Fatalf("there is no %s in\n%s", cursor, text)
	}
	uri := s.show(before + after)
	line := before[strings.LastIndex(before, "\n")+1:]
	place := position{Line: strings.Count(before, "\n"), Character: len(utf16.Encode([]rune(line)))}
	return map[string]any{"textDocument": map[string]any{"uri": uri}, "position": place}
}

// choice is one completion.
type choice struct {
	Label         string
	Documentation any // text, or markup
	InsertText    string
}

// doc is what the editor shows beside the choice.
func (c choice) doc() string {
	if m, ok := c.Documentation.(map[string]any); ok {
		text, _ := m["value"].(string)
		return text
	}
	text, _ := c.Documentation.(string)
	return text
}

// choices are what the editor offers at the cursor, by label.
func (s *server) choices(text string) map[string]choice {
	s.t.Helper()
	var list struct{ Items []choice }
	s.call("textDocument/completion", s.at(text), &list)
	all := map[string]choice{}
	for _, c := range list.Items {
		all[c.Label] = c
	}
	return all
}

// hover is what the editor shows about what the cursor is on.
func (s *server) hover(text string) string {
	s.t.Helper()
	var h *struct{ Contents struct{ Value string } }
	s.call("textDocument/hover", s.at(text), &h)
	if h == nil {
		return ""
	}
	return h.Contents.Value
}
