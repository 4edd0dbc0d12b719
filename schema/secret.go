package schema

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is a text that is never printed: whatever formats it gives ***, and only
// Reveal gives the text, to the one call that must send it. The field is not
// exported and a pointer, so that printing a struct around it shows no text either.
type Secret struct{ text *string }

const masked = "***"

// NewSecret wraps a text.
func NewSecret(text string) Secret { return Secret{&text} }

// Reveal gives the text.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero tells that no secret was given.
func (s Secret) IsZero() bool { return s.text == nil }

func (Secret) String() string               { return masked }
func (Secret) GoString() string             { return masked }
func (Secret) Format(f fmt.State, _ rune)   { _, _ = io.WriteString(f, masked) }
func (Secret) MarshalText() ([]byte, error) { return []byte(masked), nil }
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + masked + `"`), nil }
func (Secret) MarshalYAML() (any, error)    { return masked, nil }
func (Secret) LogValue() slog.Value         { return slog.StringValue(masked) }
func (s Secret) Equal(other Secret) bool    { return s.Reveal() == other.Reveal() }
