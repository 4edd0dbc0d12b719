package readers

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"runbook/runner"
)

// chart is what Mermaid's parser has read.
type chart struct {
	Error         string
	Boxes, Frames map[string]struct {
		Text, Shape string
		Markup      int // elements of HTML within the text
	}
	Arrows [][3]string
}

// readMermaid reads flowcharts with Mermaid's parser, in one process: it takes a second to start.
func readMermaid(t *testing.T, texts []string) []chart {
	t.Helper()
	node := need(t, "node")
	needModule(t, "mermaid/package.json")
	input, err := json.Marshal(texts)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), node, "mermaid.mjs")
	cmd.Stdin = bytes.NewReader(input)
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("read with Mermaid: %v\n%s", err, errOut.String())
	}
	var charts []chart
	if err := json.Unmarshal(out, &charts); err != nil {
		t.Fatal(err)
	}
	return charts
}

// drawing is a picture by Graphviz: the text of each box and frame, by its name.
type drawing map[string]string

// drawDOT draws graphs with Graphviz, in one process.
func drawDOT(t *testing.T, texts []string) []drawing {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), need(t, "dot"), "-Tsvg")
	cmd.Stdin = strings.NewReader(strings.Join(texts, ""))
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil || errOut.Len() > 0 {
		t.Fatalf("draw: %v\n%s", err, errOut.String())
	}
	type group struct {
		Class string   `xml:"class,attr"`
		Title string   `xml:"title"`
		Text  []string `xml:"text"`
	}
	pictures := strings.SplitAfter(string(out), "</svg>\n")
	drawings := make([]drawing, len(texts))
	for i := range texts {
		var picture struct {
			Graph struct {
				Groups []group `xml:"g"`
			} `xml:"g"`
		}
		if err := xml.Unmarshal([]byte(pictures[i]), &picture); err != nil {
			t.Fatalf("%v\n%s", err, texts[i])
		}
		drawings[i] = drawing{}
		for _, g := range picture.Graph.Groups {
			if g.Class != "edge" {
				drawings[i][strings.TrimPrefix(g.Title, "cluster_")] = strings.Join(g.Text, "\n")
			}
		}
	}
	return drawings
}

// forms gives a plan's graph in both languages.
func forms(t *testing.T, plan *runner.Plan) (mermaid, dot string) {
	t.Helper()
	var m, d strings.Builder
	if err := plan.WriteMermaid(&m); err != nil {
		t.Fatal(err)
	}
	if err := plan.Graph(runner.GraphDepth).WriteDOT(&d); err != nil {
		t.Fatal(err)
	}
	return m.String(), d.String()
}

// same asserts that Mermaid and Graphviz show the same boxes and frames with the same text.
func same(t *testing.T, read chart, drawn drawing) {
	t.Helper()
	if read.Error != "" {
		t.Fatal(read.Error)
	}
	texts := drawing{}
	for id, b := range read.Boxes {
		if b.Markup > 0 {
			t.Errorf("the text of %s is markup", id)
		}
		texts[id] = b.Text
	}
	for id, f := range read.Frames {
		if f.Markup > 0 {
			t.Errorf("the text of %s is markup", id)
		}
		texts[id] = f.Text
	}
	if diff := cmp.Diff(spaces(texts), spaces(drawn)); diff != "" {
		t.Errorf("Mermaid and Graphviz show different texts (-Mermaid +Graphviz):\n%s", diff)
	}
}

// spaces makes all of them plain, and drops lines of nothing else: Graphviz writes some as
// no-break spaces, so that they are seen, and no empty lines.
func spaces(d drawing) drawing {
	for id, text := range d {
		var lines []string
		for line := range strings.SplitSeq(strings.ReplaceAll(text, "\u00a0", " "), "\n") {
			if line = strings.TrimSpace(line); line != "" {
				lines = append(lines, line)
			}
		}
		d[id] = strings.Join(lines, "\n")
	}
	return d
}

func TestGraphsOfShippedRunbooks(t *testing.T) {
	var names, mermaids, dots []string
	for _, path := range shipped(t) {
		if filepath.Base(filepath.Dir(path)) == "lib" {
			continue // their inputs come from the runbook that uses them
		}
		m, d := forms(t, planOf(t, path))
		names, mermaids, dots = append(names, filepath.Base(path)), append(mermaids, m), append(dots, d)
	}
	charts, drawings := readMermaid(t, mermaids), drawDOT(t, dots)
	for i, name := range names {
		t.Run(name, func(t *testing.T) {
			same(t, charts[i], drawings[i])
			if len(charts[i].Arrows) == 0 {
				t.Error("there are no arrows")
			}
			shapes := map[string]string{}
			for id, b := range charts[i].Boxes {
				if !strings.HasPrefix(id, "legend_") {
					continue
				}
				if other, twice := shapes[b.Shape]; twice {
					t.Errorf("%s has the shape of %s: %s", id, other, b.Shape)
				}
				shapes[b.Shape] = id
			}
			if len(shapes) < 3 {
				t.Errorf("the legend has %v alone", shapes)
			}
		})
	}
}

// nasty are texts that mean something to Mermaid, Graphviz, HTML or Markdown.
var nasty = []string{
	`end`, `graph`, `subgraph x`, `class a b`, `click a href "javascript:alert(1)"`, `style x fill:red`, `direction LR`,
	`"quoted"`, `it's`, "back`tick`", "`**bold**`", `a\nb`, `\`, `ends with \`, `C:\new\table`, `\N \G \E \l`,
	`a --> b`, `a -.-> b`, `[x]`, `{{x}}`, `((x))`, `>x]`, `[/x\]`, `|x|`, `a;b`, `a & b`, `&amp;`, `&lt;b&gt;`, `&#34;`, `#quot;`, `#35;`,
	`<b>bold</b>`, `<script>alert(1)</script>`, `<img src=x onerror=alert(1)>`, `</svg>`, `<br/>`, `-->`, `<!-- x`,
	`%% comment`, `%%{init: {"theme": "dark"}}%%`, `---`, `--- title: x ---`, `1. one`, `1.`, `- item`, `* item`, `# title`, `_x_`, `__x__`, `~~x~~`,
	`$$x^2$$`, `$x$`, `fa:fa-car`, `http://x/y?a=b&c=d`, `mailto:x@y`, `@{shape: x}`, `:::class`, `é ü ñ`, `日本語の名前`, `Ω≈ç√`, `emoji 🚀`, "\u202eright to left",
	"tab\there", "bell\a", "zero\x00width", "bad \xff byte", "two\nlines", "  leading", "trailing  ", ``, ` `,
	strings.Repeat("long ", 30), strings.Repeat("x", 200), strings.Repeat("界", 60),
}

// Whatever stands in a plan, the graph can be drawn, and shows it as text.
func TestGraphsOfNastyTexts(t *testing.T) {
	plans := make([]*runner.Plan, 0, len(nasty))
	for _, text := range nasty {
		holds := false
		leaf := func(effect string) *runner.PlanStep {
			return &runner.PlanStep{
				Path: text, ID: text, Shape: runner.ShapeStep, Kind: text, Effect: effect, Targets: []runner.PlanTarget{{Name: text}, {Name: text}},
				Conditions: []runner.PlanCondition{{Key: "wait-until", Text: text}, {Key: "when", Text: text, Value: &holds}}, Pause: text,
			}
		}
		loop := leaf("cutover")
		loop.Shape, loop.Loop, loop.Steps = runner.ShapeLoop, &runner.PlanLoop{As: text, Over: text, Items: 2, Unknown: text}, []*runner.PlanStep{leaf("cutover")}
		call := leaf("destroy")
		call.Shape, call.Steps, call.NoReturn = runner.ShapeCall, []*runner.PlanStep{leaf("destroy"), leaf("read")}, true
		call.Rescue, call.Finally = []*runner.PlanStep{leaf("write")}, []*runner.PlanStep{leaf("read")}
		call.Confirm = &runner.PlanGate{Message: text, Each: text, Retype: text}
		plain := func() *runner.PlanStep {
			return &runner.PlanStep{Path: text, ID: text, Shape: runner.ShapeStep, Effect: "read", Kind: text}
		}
		skipped := leaf("write")
		skipped.Skipped = text
		plans = append(plans, &runner.Plan{Name: text, Steps: []*runner.PlanStep{loop, call, plain(), plain(), plain(), skipped}, Finally: []*runner.PlanStep{leaf("read")}})
	}
	mermaids, dots := make([]string, len(plans)), make([]string, len(plans))
	for i, plan := range plans {
		mermaids[i], dots[i] = forms(t, plan)
	}
	charts, drawings := readMermaid(t, mermaids), drawDOT(t, dots)
	for i, text := range nasty {
		t.Run(text, func(t *testing.T) {
			drawn := drawings[i]
			same(t, charts[i], drawn)
			if len(drawn) < 12 {
				t.Errorf("only %d boxes", len(drawn))
			}
			if len(text) > 40 || !utf8.ValidString(text) || strings.ContainsAny(text, "\x00\a\t\n\u202e") || strings.TrimSpace(text) != text {
				return // shown shortened, or with signs in the place of what cannot be seen
			}
			for id, shown := range drawn {
				if strings.HasSuffix(id, "_reads") && !strings.Contains(shown, text) {
					t.Errorf("%q is shown as %q", text, shown)
				}
			}
		})
	}
}
