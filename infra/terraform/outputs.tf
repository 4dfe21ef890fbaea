output "bucket" {
  description = "BUCKET of infra/kubernetes; `dvc remote add --default store s3://BUCKET/dvc`."
  value       = aws_s3_bucket.store.bucket
}

output "role_arns" {
  description = "PIPELINE_ROLE_ARN and MLFLOW_ROLE_ARN of infra/kubernetes."
  value       = { for name, role in aws_iam_role.service : name => role.arn }
}
