package post

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// The errors of text/template, such as `template: link:1:12: executing "link" at <.Name>: can't
// evaluate field Name in type post.Image`. They have no other form than their text.
var (
	templateError = regexp.MustCompile(`^template: \w*:(\d+)(?::(\d+))?: (?s:(.*))$`)
	executeError  = regexp.MustCompile(`^executing "\w*" at <(?s:(.*?)>: (?:error calling \w+: )?(.*))$`)
	noField       = regexp.MustCompile(`^can't evaluate field (\S+) in type (\S+)$`)
	noFunction    = regexp.MustCompile(`^function "(.*)" not defined$`)
)

// explainTemplate returns an error of text/template as an operator can use it: with the line and
// the column, counted from 1, and without Go's types. data is what the template is executed with,
// and functions what it may call. Other errors, and those of a form that is not known, are
// returned as they are.
func explainTemplate(err error, data any, functions []string) error {
	found := templateError.FindStringSubmatch(err.Error())
	if found == nil {
		return err
	}
	at, text := "line "+found[1], found[3]
	if offset, err := strconv.Atoi(found[2]); err == nil { // of the line, in bytes
		at += fmt.Sprintf(", column %d", offset+1)
	}
	node := ""
	if executed := executeError.FindStringSubmatch(text); executed != nil {
		node, text = executed[1], executed[2]
	}
	if f := noFunction.FindStringSubmatch(text); f != nil {
		return fmt.Errorf("%s: there is no function %s; use %s", at, f[1], strings.Join(functions, ", "))
	}
	if f := noField.FindStringSubmatch(text); f != nil {
		if t := reflect.TypeOf(data); f[2] == t.String() {
			return fmt.Errorf("%s: there is no .%s; use .%s", at, f[1], strings.Join(fieldNames(t), ", ."))
		}
		return fmt.Errorf("%s: there is no .%s in this value; in range and with, $.Name is the .Name of the image", at, f[1])
	}
	if node != "" {
		text = "{{" + node + "}}: " + strings.TrimPrefix(text, "reflect: ")
	}
	return errors.New(at + ": " + text)
}

func fieldNames(t reflect.Type) (names []string) {
	for i := range t.NumField() {
		names = append(names, t.Field(i).Name)
	}
	return names
}
