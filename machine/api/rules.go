package api

import "context"

// RuleChange changes what a guest reaches. It is made in the order of its fields.
type RuleChange struct {
	Reset bool     `json:"reset,omitempty"` // to what the sandbox was made with
	Deny  []string `json:"deny,omitempty"`  // see policy.ParseDeny
	Allow []string `json:"allow,omitempty"` // see policy.ParseRule
}

// QuestionAnswer answers a question of the guest's network.
type QuestionAnswer struct {
	ID     string `json:"id"`
	Answer string `json:"answer"` // stack.AnswerOnce, AnswerSandbox or AnswerNever
}

const (
	changeRules    call[RuleChange, nothing]     = "rules"
	answerQuestion call[QuestionAnswer, nothing] = "answer"
)

// ChangeRules changes what the guest reaches, at once and for good.
func (c *Client) ChangeRules(ctx context.Context, r RuleChange) error {
	_, err := changeRules.ask(ctx, c, r)
	return err
}

// AnswerQuestion answers an open question.
func (c *Client) AnswerQuestion(ctx context.Context, a QuestionAnswer) error {
	_, err := answerQuestion.ask(ctx, c, a)
	return err
}
