package diff

import (
	"fmt"
	"io"
	"strings"
)

// WriteMarkdown writes changes for a pull request: a line with the counts, a table of what
// can hurt, and the rest folded away.
func WriteMarkdown(w io.Writer, changes []Change) error {
	var b strings.Builder
	if len(changes) == 0 {
		b.WriteString("Means the same as before.\n")
		_, err := io.WriteString(w, b.String())
		return err
	}
	fmt.Fprintf(&b, "**%s**\n", count(changes))
	grave := len(changes)
	for i := range changes {
		if changes[i].Level < Caution {
			grave = i
			break
		}
	}
	table(&b, changes[:grave])
	if rest := changes[grave:]; len(rest) > 0 {
		fmt.Fprintf(&b, "\n<details><summary>%s</summary>\n", count(rest))
		table(&b, rest)
		b.WriteString("\n</details>\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

var signs = [...]string{Danger: "🛑", Caution: "⚠️", Notice: "ℹ️", Harmless: ""}

func table(b *strings.Builder, changes []Change) {
	if len(changes) == 0 {
		return
	}
	b.WriteString("\n| | what | before | after | why it matters |\n|---|---|---|---|---|\n")
	for i := range changes {
		c := &changes[i]
		what := cell(c.Subject())
		if c.Field != "" {
			what += " " + code(c.Field)
		}
		if len(c.Also) > 0 {
			what += cell(", also " + strings.Join(c.Also, ", "))
		}
		why := cell(c.Reason) + " (" + code(c.Rule) + ", " + cell(c.where()) + ")"
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", strings.TrimSpace(signs[c.Level]+" "+c.Level.String()), what, code(c.Before), code(c.After), why)
	}
}

// code is a text as code in a table's cell: nothing in it is markup.
func code(text string) string {
	if text == "" {
		return ""
	}
	text = strings.ReplaceAll(oneLine(text), "|", `\|`)
	fence := "`"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	if strings.HasPrefix(text, "`") || strings.HasSuffix(text, "`") {
		text = " " + text + " "
	}
	return fence + text + fence
}

// cell is a text in a table's cell, with what markup would be made of taken literally.
func cell(text string) string {
	return escape.Replace(oneLine(text))
}

var escape = strings.NewReplacer(`\`, `\\`, "|", `\|`, "`", "\\`", "*", `\*`, "_", `\_`, "<", "&lt;", ">", "&gt;", "[", `\[`, "]", `\]`, "#", `\#`, "@", "@\u200b")
