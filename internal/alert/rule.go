package alert

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"

	"portwatcher/internal/alert/notify"
	"portwatcher/internal/model"
)

// Rule is one entry of alerts.rules. It is immutable.
type Rule struct {
	Name     string
	When     string // the expression
	For      time.Duration
	Severity notify.Severity
	// To are the names of the receivers.
	To []string
	// ofDrift and ofRunning mean that the expression uses the variables drift and running.
	ofDrift, ofRunning bool
	program            *vm.Program
}

// lasts reports whether what the rule finds by an event lasts, and has an end: a drift, and what
// has stayed as it was for a time. Other events are momentary, as are those without an endpoint;
// the drift of a burst, and of what was open for a moment, is over with it.
func (r *Rule) lasts(e *model.Event) bool {
	switch {
	case e.Type == model.Bursts || e.Transient:
		return false
	case r.ofDrift && e.Drift != "":
		return true
	}
	return r.For > 0 && e.Port != 0
}

// maxNodes bounds the size of an expression.
const maxNodes = 1000

// compile sets the expression of a rule. The error points into it.
func (r *Rule) compile(when string) error {
	if strings.TrimSpace(when) == "" {
		return errors.New(`it is empty; allowed is an expression, as in drift == "wider"`)
	}
	program, err := expr.Compile(when, expr.Env(&facts{}), expr.AsBool(), expr.MaxNodes(maxNodes), expr.DisableBuiltin("now"))
	if err != nil {
		return pointed(when, err)
	}
	tree, err := parser.Parse(when)
	if err != nil {
		return pointed(when, err)
	}
	v := &visitor{uses: map[string]bool{}}
	ast.Walk(&tree.Node, v)
	if v.wrong != nil {
		return pointed(when, v.wrong.Bind(file.NewSource(when)))
	}
	r.When, r.program, r.ofDrift, r.ofRunning = when, program, v.uses["drift"], v.uses["running"]
	return nil
}

// pointed returns an error of an expression, with the line that is wrong and a mark under it.
func pointed(when string, err error) error {
	at, ok := errors.AsType[*file.Error](err)
	if !ok {
		return fmt.Errorf("%w; allowed is an expression that is true or false", err)
	}
	message := at.Message
	if name, found := strings.CutPrefix(message, "unknown name "); found {
		var names []string
		for _, v := range Variables() {
			names = append(names, v.Name)
		}
		if near := nearest(name, names); near != "" {
			message += "; did you mean " + near + "?"
		} else {
			message += "; allowed are " + strings.Join(names, ", ")
		}
	}
	lines := strings.Split(when, "\n")
	if at.Line < 1 || at.Line > len(lines) {
		return errors.New(message)
	}
	// Tabs would move the mark.
	line := strings.ReplaceAll(lines[at.Line-1], "\t", " ")
	return fmt.Errorf("%s\n    %s\n    %s^", message, line, strings.Repeat(" ", at.Column))
}

// visitor finds which variables an expression uses, and words that a variable cannot be.
type visitor struct {
	uses  map[string]bool
	wrong *file.Error
}

// Visit implements [ast.Visitor].
func (v *visitor) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		v.uses[n.Value] = true
	case *ast.BinaryNode:
		if !slices.Contains([]string{"==", "!=", "in"}, n.Operator) {
			return
		}
		v.compare(n.Left, n.Right)
		v.compare(n.Right, n.Left)
	}
}

// compare checks the words with which a variable is compared.
func (v *visitor) compare(variable, value ast.Node) {
	name, ok := variable.(*ast.IdentifierNode)
	if !ok {
		return
	}
	allowed := wordsOf(name.Value)
	if allowed == nil {
		return
	}
	values := []ast.Node{value}
	if list, ok := value.(*ast.ArrayNode); ok {
		values = list.Nodes
	}
	for _, one := range values {
		text, ok := one.(*ast.StringNode)
		if !ok || text.Value == "" || slices.Contains(allowed, text.Value) || v.wrong != nil {
			continue
		}
		v.wrong = &file.Error{
			Location: text.Location(),
			Message:  fmt.Sprintf("%s is never %s; allowed are %s", name.Value, model.Quoted(text.Value), strings.Join(allowed, ", ")),
		}
	}
}

// machine evaluates rules, one after another.
type machine struct{ vm vm.VM }

// matches evaluates a rule. The error is one of the expression, such as an index that is out of
// range.
func (m *machine) matches(r *Rule, f *facts) (bool, error) {
	result, err := m.vm.Run(r.program, f)
	if err != nil {
		if at, ok := errors.AsType[*file.Error](err); ok {
			err = errors.New(at.Message)
		}
		return false, fmt.Errorf("rule %s: %w", r.Name, err)
	}
	return result.(bool), nil // expr.AsBool
}
