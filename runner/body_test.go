package runner

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"runbook/runner/journal"
)

// Reading by hand gives what encoding/json gives, of what is usual and of what is not.
func TestBodiesAsJSON(t *testing.T) {
	for _, raw := range []string{
		`{}`,
		`{"attempt":1,"kind":"redis.command","effect":"write","target":"r","addr":"127.0.0.1:1","commands":["SET a \"b\"","é \u00e9 \n"],"digest":"ab"}`,
		`{"attempt":2,"before":{"a":[1,{"b":"}\""}],"c":null},"withheld":true,"waiting":"lag == 0"}`,
		`{"attempt":-1,"commands":[]}`,
		`{"attempt":null,"kind":null,"commands":null}`,
		`{"status":"changed","outputs":{"reply":"OK","n":12345678901234567890,"f":-1.5e3,"l":[true,false,null,[],{}],"":""},"duration":"1.5s","attempts":3,"recovered":true}`,
		`{"status":"failed","error":{"message":"no","kind":"x","temporary":false},"warnings":["w"],"attempts":1}`,
		`{"status":"skipped","reason":"when: \"a\" is false"}`,
		`{"status":"a\u0062c","later":1}`,
	} {
		rec := journal.Record{Body: json.RawMessage(raw)}
		var reader bodyReader
		var started, wantStarted StepStarted
		var finished, wantFinished StepFinished
		if err := reader.started(rec, &started); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
		if err := reader.finished(rec, &finished); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
		for _, err := range []error{json.Unmarshal([]byte(raw), &wantStarted), json.Unmarshal([]byte(raw), &wantFinished)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if d := cmp.Diff(wantStarted, started); d != "" {
			t.Errorf("step-started %s: %s", raw, d)
		}
		if d := cmp.Diff(wantFinished, finished); d != "" {
			t.Errorf("step-finished %s: %s", raw, d)
		}
		sameValues(t, []byte(raw))
	}
}

func sameValues(t *testing.T, raw []byte) {
	t.Helper()
	var want map[string]any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	wantErr := d.Decode(&want)
	got, err := values(raw)
	if (err == nil) != (wantErr == nil) {
		t.Errorf("%s: %v, encoding/json says %v", raw, err, wantErr)
	} else if diff := cmp.Diff(want, got); err == nil && diff != "" {
		t.Errorf("%s: %s", raw, diff)
	}
}

// What is cut short is an error or a value, never a panic.
func TestBodiesCutShort(t *testing.T) {
	whole := `{"attempt":1,"commands":["a\"b"],"before":{"a":[1,"}"]},"withheld":true,"status":"ok","outputs":{"x":[1,{"y":null}]}}`
	for i := range whole {
		rec := journal.Record{Body: json.RawMessage(whole[:i])}
		var reader bodyReader
		if i > 0 && (reader.started(rec, &StepStarted{}) == nil || reader.finished(rec, &StepFinished{}) == nil) {
			t.Errorf("%s is read as if it were whole", whole[:i])
		}
		if _, err := values(rec.Body); err == nil {
			t.Errorf("%s is read as if it were whole", whole[:i])
		}
	}
}
