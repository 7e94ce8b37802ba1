"""GRPO: engines that hold the trainer's weights, rollouts, advantages and the loss."""
