package schema

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Rule is what findings of one name have in common.
type Rule struct {
	Name string // as in Finding.Rule
	Doc  string // what is wrong, and why that matters: sentences
	// Exact: a suggestion that is one word or one quoted text can stand in the finding's place as it is.
	Exact bool
}

// Tool is who made findings.
type Tool struct {
	Name, Version string
	Rules         []Rule // a finding may be of a rule that is not here: it has no help
}

// WriteSARIF writes findings as a log in the Static Analysis Results Interchange Format,
// version 2.1.0. A relative path is one from the root of the sources (%SRCROOT%). A
// result's fingerprint comes from its file, rule and message, so it stays the same when
// lines above it come or go.
func WriteSARIF(w io.Writer, tool Tool, findings []Finding) error {
	run := sarifRun{
		Tool:       sarifTool{sarifDriver{Name: tool.Name, Version: tool.Version, Rules: []sarifRule{}}},
		ColumnKind: "unicodeCodePoints",
		Results:    make([]sarifResult, 0, len(findings)),
	}
	driver, numbers, seen := &run.Tool.Driver, map[string]int{}, map[string]int{}
	for _, f := range findings {
		known := slices.IndexFunc(tool.Rules, func(r Rule) bool { return r.Name == f.Rule })
		number, met := numbers[f.Rule]
		if !met {
			number = len(driver.Rules)
			numbers[f.Rule] = number
			rule := Rule{Name: f.Rule}
			if known >= 0 {
				rule = tool.Rules[known]
			}
			driver.Rules = append(driver.Rules, sarifRuleOf(rule))
		}
		result := sarifResult{Rule: f.Rule, Number: number, Level: f.Severity, Message: sarifText{f.told()}}
		if f.Line > 0 {
			at := sarifPlace{File: sarifFileOf(f.Path), Region: sarifRegion{f.Line, f.Column, f.EndLine, f.EndColumn}}
			result.Locations = []sarifLocation{{at}}
			if known >= 0 && tool.Rules[known].Exact && exact(f) {
				result.Fixes = []sarifFix{{
					Description: sarifText{"write " + f.Suggestion},
					Changes:     []sarifChange{{at.File, []sarifReplacement{{at.Region, sarifText{f.Suggestion}}}}},
				}}
			}
		}
		same := identity(f)
		result.Fingerprints = map[string]string{"finding/v1": fingerprint(same, seen[same])}
		seen[same]++
		run.Results = append(run.Results, result)
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(sarifLog{"https://json.schemastore.org/sarif-2.1.0.json", "2.1.0", []sarifRun{run}})
}

// told is what a finding says where there is no caret: of what, if it is not in a file, and what helps.
func (f Finding) told() string {
	text := f.Message
	if f.Line == 0 && f.Path != "" {
		text = f.Path + ": " + text
	}
	if f.Suggestion != "" {
		text += "\nhelp: " + f.Suggestion
	}
	return text
}

// exact tells whether a suggestion can be typed as it stands: it is no pattern with “…”.
func exact(f Finding) bool {
	return f.Suggestion != "" && f.Line == f.EndLine && f.Column < f.EndColumn && exactText.MatchString(f.Suggestion)
}

var (
	exactText = regexp.MustCompile(`^([\w./-]+|"(?:[^"\\…]|\\.)*"|'(?:[^'…]|'')*')$`)
	otherLine = regexp.MustCompile(`\bline \d+`)
)

// identity is what makes a finding the same one in another version of its file. A
// message may name another line, which moves.
func identity(f Finding) string {
	return strings.Join([]string{filepath.ToSlash(f.Path), f.Rule, otherLine.ReplaceAllString(f.Message, "line")}, "\x00")
}

// fingerprint tells findings of one identity apart by their order in the file.
func fingerprint(identity string, before int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d", identity, before))
	return hex.EncodeToString(sum[:16])
}

func sarifRuleOf(r Rule) sarifRule {
	if r.Doc == "" {
		return sarifRule{ID: r.Name}
	}
	short, _, _ := strings.Cut(r.Doc, ". ")
	return sarifRule{ID: r.Name, Short: &sarifText{strings.TrimSuffix(short, ".") + "."}, Full: &sarifText{r.Doc}, Help: &sarifText{r.Doc}}
}

// sarifFileOf gives a path as a URI: relative to the root of the sources, or whole.
func sarifFileOf(path string) sarifFile {
	slashed := filepath.ToSlash(path)
	if filepath.IsAbs(path) {
		return sarifFile{URI: (&url.URL{Scheme: "file", Path: slashed}).String()}
	}
	return sarifFile{URI: (&url.URL{Path: slashed}).String(), Base: "%SRCROOT%"}
}

type sarifLog struct {
	Schema  string     `json:"$schema"`
	Version string     `json:"version"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct {
	Tool       sarifTool     `json:"tool"`
	ColumnKind string        `json:"columnKind"`
	Results    []sarifResult `json:"results"`
}

type sarifTool struct {
	Driver sarifDriver `json:"driver"`
}

type sarifDriver struct {
	Name    string      `json:"name"`
	Version string      `json:"version,omitempty"`
	Rules   []sarifRule `json:"rules"`
}

type sarifRule struct {
	ID    string     `json:"id"`
	Short *sarifText `json:"shortDescription,omitempty"`
	Full  *sarifText `json:"fullDescription,omitempty"`
	Help  *sarifText `json:"help,omitempty"`
}

type sarifResult struct {
	Rule         string            `json:"ruleId"`
	Number       int               `json:"ruleIndex"`
	Level        Severity          `json:"level"` // the words are the same
	Message      sarifText         `json:"message"`
	Locations    []sarifLocation   `json:"locations,omitempty"`
	Fingerprints map[string]string `json:"partialFingerprints"`
	Fixes        []sarifFix        `json:"fixes,omitempty"`
}

type sarifText struct {
	Text string `json:"text"`
}

type sarifLocation struct {
	Place sarifPlace `json:"physicalLocation"`
}

type sarifPlace struct {
	File   sarifFile   `json:"artifactLocation"`
	Region sarifRegion `json:"region"`
}

type sarifFile struct {
	URI  string `json:"uri"`
	Base string `json:"uriBaseId,omitempty"`
}

// sarifRegion is in lines and code points from 1, its end exclusive: as a Finding has it.
type sarifRegion struct {
	Line      int `json:"startLine"`
	Column    int `json:"startColumn"`
	EndLine   int `json:"endLine"`
	EndColumn int `json:"endColumn"`
}

type sarifFix struct {
	Description sarifText     `json:"description"`
	Changes     []sarifChange `json:"artifactChanges"`
}

type sarifChange struct {
	File         sarifFile          `json:"artifactLocation"`
	Replacements []sarifReplacement `json:"replacements"`
}

type sarifReplacement struct {
	Deleted  sarifRegion `json:"deletedRegion"`
	Inserted sarifText   `json:"insertedContent"`
}
