package post

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/template/parse"
)

// The functions that a template may call: those of rendering.functions, and those of
// text/template that write no text.
var (
	callable = slices.Concat(slices.Sorted(maps.Keys(new(rendering).functions())), builtins)
	builtins = []string{"and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "len", "index"}
)

// The lists of the data, which range may read.
var lists = []string{"Tags", "Platforms", "Hashtags", "Annotations"}

// checkTree returns an error if the template may do what it must not.
func (t *Template) checkTree() error { return t.checkNode(t.parsed.Root, false) }

// checkNode checks a node and those in it. inRange is true in a range.
func (t *Template) checkNode(node parse.Node, inRange bool) error {
	switch n := node.(type) {
	case *parse.ListNode:
		if n == nil { // no else
			return nil
		}
		for _, one := range n.Nodes {
			if err := t.checkNode(one, inRange); err != nil {
				return err
			}
		}
	case *parse.ActionNode:
		return t.checkNode(n.Pipe, inRange)
	case *parse.IfNode:
		return t.checkBranch(&n.BranchNode, inRange, inRange)
	case *parse.WithNode:
		return t.checkBranch(&n.BranchNode, inRange, inRange)
	case *parse.RangeNode:
		if inRange || !isList(n.Pipe) {
			return fmt.Errorf("range is for .%s, and not in another range", strings.Join(lists, ", ."))
		}
		return t.checkBranch(&n.BranchNode, true, inRange)
	case *parse.TemplateNode:
		return errors.New("the template executes another template; write it in one")
	case *parse.PipeNode:
		for _, command := range n.Cmds {
			if err := t.checkCommand(command, inRange); err != nil {
				return err
			}
		}
	case *parse.ChainNode:
		return t.checkNode(n.Node, inRange)
	case *parse.IdentifierNode:
		if !slices.Contains(callable, n.Ident) {
			return fmt.Errorf("the template calls %s; it may call %s", n.Ident, strings.Join(callable, ", "))
		}
	case *parse.StringNode:
		if strings.ContainsFunc(n.Text, isMark) {
			return errors.New("the template has a Unicode noncharacter; remove it")
		}
	case *parse.FieldNode:
		return t.checkField(n.Ident)
	case *parse.VariableNode:
		return t.checkField(n.Ident[1:])
	}
	return nil
}

func (t *Template) checkBranch(n *parse.BranchNode, inRange, elseInRange bool) error {
	return errors.Join(t.checkNode(n.Pipe, inRange), t.checkNode(n.List, inRange), t.checkNode(n.ElseList, elseInRange))
}

// checkCommand also checks the keys of annotations.
func (t *Template) checkCommand(command *parse.CommandNode, inRange bool) error {
	for i, arg := range command.Args {
		if err := t.checkNode(arg, inRange); err != nil {
			return err
		}
		key, ok := arg.(*parse.StringNode)
		if !ok || i == 0 || !isAnnotations(command.Args[i-1]) {
			continue
		}
		if err := t.checkKey(key.Text); err != nil {
			return err
		}
	}
	return nil
}

// checkField checks the key in .Annotations.key.
func (t *Template) checkField(names []string) error {
	if len(names) > 1 && names[0] == "Annotations" {
		return t.checkKey(names[1])
	}
	return nil
}

func (t *Template) checkKey(key string) error {
	if !slices.Contains(t.annotations, key) {
		return fmt.Errorf("the template uses the annotation %q, which announce.annotations does not list", key)
	}
	return nil
}

// fieldOf returns the field of the data that a node reads, "" if it is something else.
func fieldOf(node parse.Node) string {
	switch n := node.(type) {
	case *parse.FieldNode:
		if len(n.Ident) == 1 {
			return n.Ident[0]
		}
	case *parse.VariableNode:
		if len(n.Ident) == 2 && n.Ident[0] == "$" {
			return n.Ident[1]
		}
	}
	return ""
}

func isAnnotations(node parse.Node) bool { return fieldOf(node) == "Annotations" }

// isList reports whether a pipeline is one of the lists.
func isList(pipe *parse.PipeNode) bool {
	return len(pipe.Cmds) == 1 && len(pipe.Cmds[0].Args) == 1 && slices.Contains(lists, fieldOf(pipe.Cmds[0].Args[0]))
}
